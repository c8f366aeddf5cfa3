"""Plans of random modules survive saving, loading and replaying; every order is legal."""

from hypothesis import given, settings
from hypothesis import strategies as st

from hlo_passes.base import Context
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.plans import Plan
from hlo_passes.reorder_scheduled import ReorderScheduled
from hlo_passes.schedule_dw import ScheduleDw
from hlo_passes.verify import verify_exchange_pairs, verify_reordering

HEADER = (
    "HloModule jit_step, is_scheduled=true, "
    "input_output_alias={ {0}: (0, {}, may-alias) }, entry_computation_layout={...}, "
    "num_partitions=8\n\nENTRY %main (p: bf16[1024,1024]) -> bf16[1024,1024] {\n"
)
SHAPE = "bf16[1024,1024]{1,0}"
GROUPS = "replica_groups={{0,1,2,3,4,5,6,7}}"


@st.composite
def modules(draw):
    """Chains of products and exchanges that read anything before them, and update a weight."""
    lines = [f"  %w = {SHAPE} parameter(0)", f"  %x = {SHAPE} parameter(1)"]
    values = ["w", "x"]
    for i in range(draw(st.integers(1, 14))):
        a, b = (draw(st.sampled_from(values)) for _ in "ab")
        kind = draw(st.sampled_from(["dot", "dot", "add", "a2a", "sum", "effect"]))
        if kind == "dot":
            lines.append(
                f"  %v{i} = {SHAPE} dot(%{a}, %{b}), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}"
            )
        elif kind == "add":
            lines.append(f"  %v{i} = {SHAPE} add(%{a}, %{b})")
        elif kind == "effect":
            lines.append(
                f'  %v{i} = {SHAPE} custom-call(%{a}), custom_call_target="log", custom_call_has_side_effect=true'
            )
        else:
            op, more = ("all-to-all", ", dimensions={0}") if kind == "a2a" else ("all-reduce", "")
            lines.append(f"  %s{i} = (({SHAPE}), {SHAPE}) {op}-start(%{a}), {GROUPS}{more}")
            lines.append(f"  %v{i} = {SHAPE} {op}-done(%s{i})")
        values.append(f"v{i}")
    lines.append(f"  %new = {SHAPE} subtract(%w, %{values[-1]})")
    outputs = draw(st.lists(st.sampled_from(values), max_size=3))
    shapes = ", ".join(["bf16[1024,1024]"] * (1 + len(outputs)))
    lines.append(f"  ROOT %out = ({shapes}) tuple({', '.join(f'%{v}' for v in ['new', *outputs])})")
    return HEADER + "\n".join(lines) + "\n}\n"


@settings(max_examples=60, deadline=None)
@given(modules(), st.sampled_from(["best", "greedy", "list"]), st.booleans())
def test_plan_save_load_replay(text, strategy, guard):
    module = ScheduledModule(text)
    graph = module.snapshot()
    verify_exchange_pairs(graph)
    step = ReorderScheduled(ScheduleDw(strategy=strategy, two_x_guard=guard, memory_slack=1.0))
    context = Context(costs=TargetCosts(parse_target("v100:1x8")), fingerprint=module.fingerprint)
    plan = step.plan(graph, context)
    verify_reordering(graph, plan.orders)
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert step.plan(ScheduledModule(text).snapshot(), context).to_json() == plan.to_json()
    first, second = step.apply(module, plan), step.apply(ScheduledModule(text), again)
    assert first.module.text == second.module.text
    assert first.changed == plan.changes
    assert plan.after.step_us <= plan.before.step_us
    after = first.module.snapshot()
    assert {op.name for op in after.ops} == {op.name for op in graph.ops}
    uses = {op.name: [graph.ops[v].name for v in op.operands] for op in graph.ops}
    assert {op.name: [after.ops[v].name for v in op.operands] for op in after.ops} == uses
    assert plan.bound_us <= plan.after.exposed_us + 1e-3
