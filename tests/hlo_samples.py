"""HLO as people write it by hand; XLA prints none of it so, and its own parser reads it all."""

PLAIN = """HloModule plain, is_scheduled=true, num_partitions=8

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %s = f32[] add(%x, %y)
}

%body (carry: (s32[], f32[8,64])) -> (s32[], f32[8,64]) {
  %carry = (s32[], f32[8,64]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%carry), index=0
  %v = f32[8,64]{1,0} get-tuple-element(%carry), index=1
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %ring = f32[8,64]{1,0} collective-permute(%v), channel_id=3, source_target_pairs={{0,1},{1,2},{2,0}}
  ROOT %again = (s32[], f32[8,64]{1,0}) tuple(%next, %ring)
}

%test (seen: (s32[], f32[8,64])) -> pred[] {
  %seen = (s32[], f32[8,64]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%seen), index=0
  %limit = s32[] constant(12)
  ROOT %more = pred[] compare(%j, %limit), direction=LT
}

ENTRY %main (tokens: f32[8,64], few: s8[<=10]) -> (f32[8,64], f32[64,64]) {
  %tokens = f32[8,64]{1,0} parameter(0)
  %few = s8[<=10]{0} parameter(1)
  %sent = f32[8,64]{1,0} all-to-all(%tokens), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}, metadata={op_name="jit(step)/moe, the {first}"}
  %sum = f32[8,64]{1,0} all-reduce(%sent), channel_id=2, replica_groups=[2,4]<=[4,2]T(1,0), use_global_device_ids=true, to_apply=%add
  %zero = s32[] constant(0)
  %table = s32[2,2]{1,0} constant({ { 1, 2 }, { 3, 4 } })
  %start = (s32[], f32[8,64]{1,0}) tuple(%zero, %sum)
  %loop = (s32[], f32[8,64]{1,0}) while(%start), condition=%test, body=%body, backend_config={"known_trip_count":{"n":"12"}}
  %out = f32[8,64]{1,0} get-tuple-element(%loop), index=1
  %dot = f32[64,64]{1,0} dot(%out, %tokens), lhs_contracting_dims={0}, rhs_contracting_dims={0}
  %kept = b(f32[64,64]{1,0}) custom-call(%dot), custom_call_target="Pin", output_to_operand_aliasing={{}: (0, {})}
  %free = f32[64,64]{1,0} custom-call(%kept), custom_call_target="Unpin"
  ROOT %both = (f32[8,64]{1,0}, f32[64,64]{1,0}) tuple(%out, %free)
}
"""
"""As XLA prints it."""

SHORT = """// nothing but what has to be there
HloModule short, num_partitions=4

add { x = f32[] parameter(0)
  y = f32[] parameter(1)
  ROOT s = f32[] add(x, y) }

main {
  x = f32[16,16] parameter(0)  // the same name as in add
  y = f32[16,16] all-reduce(x), replica_groups={{0, 1}, {2, 3}},
    channel_id=1, use_global_device_ids=true, to_apply=add
  /* two at once */ z = (f32[16,16], f32[16,16]) tuple(x, y)
  t = f32[16,16] get-tuple-element(z), index= 1
  w = f32[16,16] all-gather(t), replica_groups= [ 1,4 ]<=[4], channel_id=2,
    use_global_device_ids=true, dimensions={
      0}
  add.0 = f32[16,16] add(w, w)
  add = f32[16,16] add(add.0, w)
}
"""

SAMPLES = {
    "plain": PLAIN,
    "short": SHORT,
    "indented": "\n".join("    " + line for line in PLAIN.split("\n")),
    "windows": PLAIN.replace("\n", "\r\n"),
    "shapes": PLAIN.replace("(%sent)", "(f32[8,64]{1,0} %sent)").replace(
        "(%zero, %sum)", "(s32[] %zero, f32[8,64]{1,0} %sum)"
    ),
    "no percents": PLAIN.replace("%", ""),
    "comment": PLAIN.replace("HloModule ", "/* mine */ HloModule\n  "),
    "no entry": PLAIN.replace("ENTRY ", ""),
    "no root": PLAIN.replace("ROOT %both", "%both"),
    "wrapped": PLAIN.replace(", replica_groups", ",\n      replica_groups").replace("{{", "{\n{"),
    "config": PLAIN.replace('{"known', '{\n  "known').replace('"12"}}', '"12"}\n}'),
    "spaced": PLAIN.replace("_groups=", "_groups= ").replace("},{", "}, {").replace("[2,4]", "[2, 4]"),
}  # fmt: skip
