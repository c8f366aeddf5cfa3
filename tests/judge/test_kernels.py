"""Kernels in custom calls: priced by what they compute, by planner and judge alike."""

import pytest

from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.schedule.simulate import simulate
from lancet_jax.judge import judge
from tests.hlo import scheduled

COSTS = TargetCosts(parse_target("h100:1x8"))
PROFILE = COSTS.target.profile
M, K, N, G = 8192, 1024, 4096, 8
PRODUCT = 2 * M * K * N / (PROFILE.matmul_flops["bf16"] * PROFILE.efficiency["matmul"]) * 1e6


def bf16(*dims):
    return f"bf16[{','.join(map(str, dims))}]"


def kernel(*operands, made, attributes='custom_call_target="mosaic_gpu_v2"'):
    lines = [f"  %p{i} = {shape} parameter({i})" for i, shape in enumerate(operands)]
    reads = ", ".join(f"%p{i}" for i in range(len(operands)))
    return scheduled("\n".join([*lines, f"  ROOT %k = {made} custom-call({reads}), {attributes}"]))


def us_of(text):
    found = judge(text, COSTS).step_us
    assert simulate(ScheduledModule(text).snapshot(), COSTS).makespan_us == pytest.approx(found)
    return found


SIZES = f"s32[{G}]"


@pytest.mark.parametrize(
    ("operands", "made"),
    [
        ((SIZES, bf16(M, K), bf16(G, K, N)), bf16(M, N)),
        ((bf16(M, K), bf16(G, N, K), SIZES), bf16(M, N)),
        ((SIZES, bf16(G, K, N), bf16(M, K)), bf16(M, N)),
        ((SIZES, SIZES, bf16(M, K), bf16(M, N)), bf16(G, K, N)),
        ((bf16(M, N), bf16(M, K), SIZES), bf16(G, K, N)),
        ((SIZES, bf16(M, K), bf16(G, K, N)), f"({bf16(M, N)}, s8[1024])"),
    ],
)
def test_a_grouped_product_costs_its_operations(operands, made):
    text = kernel(*operands, made=made)
    assert us_of(text) == pytest.approx(PRODUCT + PROFILE.launch_us)
    (op,) = [op for op in ScheduledModule(text).snapshot().ops if op.kind == "custom_call"]
    assert (op.matmul, op.dtype) == (True, "bf16")


@pytest.mark.parametrize(
    ("operands", "made"),
    [
        ((bf16(M, K), bf16(M, K)), bf16(M, K)),
        ((bf16(M, M), bf16(M, M)), bf16(M, M)),
        ((bf16(M, K), bf16(G, N, N)), bf16(M, N)),
        ((bf16(G, M, K), bf16(G, M, K)), bf16(G, M, K)),
    ],
)
@pytest.mark.parametrize("name", ["my_matmul", "gemm"])
def test_other_kernels_cost_what_they_move_whatever_they_are_called(operands, made, name):
    attributes = f'custom_call_target="{name}", metadata={{op_name="jit(f)/{name}"}}'
    text = kernel(*operands, made=made, attributes=attributes)
    (op,) = [op for op in ScheduledModule(text).snapshot().ops if op.kind == "custom_call"]
    assert not op.matmul
    moved = op.bytes / (PROFILE.hbm_bytes_per_s * PROFILE.efficiency["hbm"]) * 1e6
    assert us_of(text) == pytest.approx(moved + PROFILE.launch_us)


def test_it_costs_the_same_before_xla_has_seen_it():
    a, b, made = f"tensor<{M}x{K}xbf16>", f"tensor<{G}x{K}x{N}xbf16>", f"tensor<{M}x{N}xbf16>"
    module = Module.parse(f"""func.func @main(%s: tensor<{G}xi32>, %a: {a}, %b: {b}) -> {made} {{
      %y = stablehlo.custom_call @mosaic_gpu_v2(%s, %a, %b) : (tensor<{G}xi32>, {a}, {b}) -> {made}
      return %y : {made}
    }}""")
    graph = module.snapshot()
    timeline = simulate(graph, COSTS.for_graph(graph))
    assert timeline.makespan_us == pytest.approx(PRODUCT + PROFILE.launch_us)


INNER = f"""%product (a: {bf16(M, K)}, b: {bf16(K, N)}) -> {bf16(M, N)} {{
  %a = {bf16(M, K)} parameter(0)
  %b = {bf16(K, N)} parameter(1)
  ROOT %d = {bf16(M, N)} dot(%a, %b), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
}}

%around (c: {bf16(M, K)}, d: {bf16(K, N)}) -> {bf16(M, N)} {{
  %c = {bf16(M, K)} parameter(0)
  %e = {bf16(K, N)} parameter(1)
  ROOT %f = {bf16(M, N)} fusion(%c, %e), kind=kCustom, calls=%product
}}"""


@pytest.mark.parametrize(("name", "called"), [("call", "to_apply"), ("async", "calls")])
def test_a_product_on_a_stream_of_its_own_costs_its_operations(name, called):
    rows, matrix, made = bf16(M, K), bf16(K, N), bf16(M, N)
    text = scheduled(
        f"""  %a = {rows} parameter(0)
  %b = {matrix} parameter(1)
  %s = (({rows}, {matrix}), {made}) {name}-start(%a, %b), {called}=%around
  ROOT %d = {made} {name}-done(%s)""",
        INNER,
    )
    assert us_of(text) == pytest.approx(PRODUCT + PROFILE.launch_us)
