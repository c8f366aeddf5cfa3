"""Small scheduled modules that several tests read."""


def scheduled(entry: str, *others: str, header: str = "") -> str:
    """Return a scheduled module with the given entry instructions and other computations."""
    computations = "\n\n".join(others)
    return (
        f"HloModule jit_step, is_scheduled=true{header}, num_partitions=8\n\n"
        f"{computations}\n\nENTRY %main (args: f32[]) -> f32[] {{\n{entry}\n}}\n"
    )


_GEMM = (
    'custom_call_target="__cublas$lt$matmul", backend_config={"gemm_backend_config":'
    '{"dot_dimension_numbers":{"lhs_contracting_dimensions":["0"]}},'
    '"reification_cost":[{"exec_time_us":12.5,"name":"sol"}]}'
)

STEP = (
    f"""HloModule jit_step, is_scheduled=true, num_partitions=8

FileNames
1 "model.py"

FunctionNames
1 "layer"

FileLocations
1 {{file_name_id=1 function_name_id=1 line=7 end_line=7 column=1 end_column=2}}

StackFrames
1 {{file_location_id=1 parent_frame_id=1}}

ENTRY %main (x: bf16[8,64], y: bf16[8,64]) -> bf16[64,64] {{
  %x = bf16[8,64]{{1,0}} parameter(0)
  %y = bf16[8,64]{{1,0}} parameter(1)
  %bias = bf16[8,64]{{1,0}} parameter(2)
  %a2a-start = ((bf16[8,64]{{1,0}}), bf16[8,64]{{1,0}}) all-to-all-start(%x), channel_id=1, """
    f"""replica_groups=mesh['ep'=8] {{'ep'}}, dimensions={{0}}, """
    f"""metadata={{op_name="jit(step)/moe/all_to_all" stack_frame_id=1}}
  %a2a-done = bf16[8,64]{{1,0}} all-to-all-done(%a2a-start)
  %gemm = (bf16[8,64]{{1,0}}, s8[64]{{0}}) custom-call(%a2a-done, %y, %bias), {_GEMM}, """
    f"""output_to_operand_aliasing={{{{0}}: (2, {{}})}}
  %dw = bf16[64,64]{{1,0}} custom-call(%x, %y), {_GEMM}
  %use = bf16[8,64]{{1,0}} get-tuple-element(%gemm), index=0
  ROOT %out = (bf16[64,64], bf16[8,64]) tuple(%dw, %use)
}}
"""
)
