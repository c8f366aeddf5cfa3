"""The one runner of passes: nothing runs unchecked, and nothing is left half done."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from hlo_passes.base import Job, Pass, PassResult, Stage, Tier
from hlo_passes.choose_split import ChooseSplit
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.errors import OptionError, PlanError, VerifyError
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.pin_order import PinOrder
from hlo_passes.pipelines import PASSES, pass_of
from hlo_passes.plans import Pin, Plan, Split, Stream, reorders
from hlo_passes.reorder_scheduled import ReorderScheduled
from hlo_passes.run import Pipeline, fitted, rivals_of, run_pass
from hlo_passes.schedule_dw import ScheduleDw
from hlo_passes.separate_tiers import SeparateTiers
from hlo_passes.split_exchange import SplitExchange
from hlo_passes.split_region import SplitRegion
from hlo_passes.unroll_loops import UnrollLoops
from hlo_passes.verify import exchanges_paired
from tests.hlo import STEP

JOB = Job(costs=TargetCosts(parse_target("h100:1x8")))
DONE = "%a2a-done = bf16[8,64]{1,0} all-to-all-done(%a2a-start)"
ALONE = STEP.replace(DONE, "%a2a-done = bf16[8,64]{1,0} get-tuple-element(%a2a-start), index=1")
CROSSED = (0, 1, 2, 4, 3, 5, 6, 7, 8)
"""An order in which an exchange is waited for before it begins."""
LATER = (0, 1, 2, 3, 6, 4, 5, 7, 8)
"""One that is legal: a product beside the exchange."""


@dataclass(frozen=True)
class Own(Pass):
    """Does as it is told, and writes down what it was asked."""

    tier: ClassVar[Tier] = Tier.EXACT
    stage: ClassVar[Stage] = Stage.BEHIND_SCHEDULER

    leaves: str = ""
    order: tuple[int, ...] = ()
    bound: int | None = None
    log: Any = field(default_factory=list, compare=False, repr=False)

    @property
    def spec(self):
        return self.pass_name()

    def plan(self, graph, context):
        self.log.append("plan")
        orders = {graph.name: self.order} if self.order else {}
        return Plan(
            module=context.fingerprint, target=context.costs.name, passes=(self.spec,),
            edits=reorders(self.spec, orders),
        )  # fmt: skip

    def memory_bound(self, graph, context, plan):
        return self.bound

    def apply(self, module, plan):
        self.log.append("apply")
        if plan.orders:
            return PassResult(module.reordered(plan.orders), True)
        return PassResult(
            ScheduledModule(self.leaves) if self.leaves else module, bool(self.leaves)
        )


@pytest.fixture
def module():
    return ScheduledModule(STEP)


# ------------------------------------------------------------------------------------ pipelines


@dataclass(frozen=True)
class Sorts(Own):
    answers: ClassVar[frozenset[str]] = frozenset({"order"})


@pytest.mark.parametrize(
    ("one", "other", "question"),
    [
        (ScheduleDw(), Sorts(), "order"),
        (ScheduleDw(), ReorderScheduled(), "order"),
        (SplitRegion(), ChooseSplit(), "cut"),
        (UnrollLoops(), ChooseSplit(), "number of trips at once"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.pass_name(),
)
def test_two_passes_that_settle_one_question_are_an_error_naming_both(one, other, question):
    with pytest.raises(OptionError, match=f"{one.pass_name()} and {other.pass_name()} both settle"):
        Pipeline((one, other))
    with pytest.raises(OptionError, match=question):
        Pipeline((other, Own(), one))


def test_a_pipeline_is_its_passes_by_stage():
    made = Pipeline((SplitRegion(), ScheduleDw(), own := Own()))
    assert made.spec == "split-region,schedule-dw,own"
    assert made.at(Stage.BEFORE_XLA).passes == (SplitRegion(),)
    assert made.at(Stage.BEHIND_SCHEDULER).passes == (ScheduleDw(), own)


def test_after_sees_every_pass_with_its_plan_and_what_it_left(module):
    seen = []
    passes = (Own(order=LATER), Own(), Own(leaves=STEP))
    made, plans = Pipeline(passes).run(module, JOB, after=seen.append)
    assert [one.step for one in seen] == list(passes)
    assert tuple(one.plan for one in seen) == plans
    assert seen[0].module.fingerprint != module.fingerprint
    assert seen[1].module is seen[0].module
    assert seen[2].module is made
    assert all(one.seconds >= 0 for one in seen)
    assert [plan.module for plan in plans] == [
        module.fingerprint,
        *[seen[0].module.fingerprint] * 2,
    ]


def test_an_empty_pipeline_leaves_everything(module):
    assert Pipeline(()).run(module, JOB) == (module, ())


def test_what_works_on_a_schedule_is_found_for_it(module):
    assert fitted(ScheduleDw(strategy="list"), module) == ReorderScheduled(ScheduleDw("list"))
    assert fitted(Own(), module) == Own()
    applied = run_pass(ScheduleDw(), module, JOB)
    assert applied.plan.after.step_us <= applied.plan.before.step_us


# ---------------------------------------------------------------------------------- known plans


def test_a_plan_that_is_known_is_followed_and_not_made(module):
    first, again = Own(order=LATER), Own()
    made, plans = Pipeline((first,)).run(module, JOB)
    other, same = Pipeline((again,)).run(module, JOB, plans=plans)
    assert other.text == made.text
    assert same == plans
    assert first.log == ["plan", "apply"]
    assert again.log == ["apply"]


@pytest.mark.parametrize("step", [Own(), ScheduleDw(), ReorderScheduled()])
def test_a_plan_of_another_module_is_refused(module, step):
    plan = Plan(module="another", target="h100:1x8", edits=reorders("own", {"main": LATER}))
    text = module.text
    with pytest.raises(PlanError, match="made for module another"):
        Pipeline((step,)).run(module, JOB, plans=[plan])
    assert module.text == text
    assert getattr(step, "log", []) == []


def test_a_plan_that_was_edited_is_checked_again(module):
    name = module.snapshot().name
    plan = Plan(module=module.fingerprint, target="h100:1x8",
                edits=reorders("own", {name: CROSSED}))  # fmt: skip
    with pytest.raises(VerifyError, match="a2a-done: stands before a2a-start"):
        Pipeline((step := Own(),)).run(module, JOB, plans=[plan])
    assert step.log == []


# --------------------------------------------------------------------------------------- checks


def failing(step, module):
    """Run a pass behind one that is well; return what was seen of both until it failed."""
    seen, text = [], module.text
    with pytest.raises(VerifyError) as raised:
        Pipeline((Own(), step)).run(module, JOB, after=seen.append)
    assert [one.step for one in seen] == [Own()]
    assert module.text == text
    return str(raised.value)


def test_an_illegal_order_is_no_module_at_all(module):
    step = Own(order=CROSSED)
    assert "a2a-done: stands before a2a-start, which it needs" in failing(step, module)
    assert step.log == ["plan"]


def test_an_order_that_loses_an_op_is_no_module_at_all(module):
    step = Own(order=(0, 0, *range(2, 9)))
    assert "every op once" in failing(step, module)
    assert step.log == ["plan"]


def test_an_order_that_needs_too_much_is_no_module_at_all(module):
    step = Own(order=LATER, bound=1)
    assert "needs" in failing(step, module)
    assert step.log == ["plan"]


def test_an_exchange_that_nobody_waits_for_is_no_module_at_all(module):
    assert "a2a-start: starts and nothing waits for it" in failing(Own(leaves=ALONE), module)


def test_a_module_that_came_illegal_is_not_planned_on():
    step = Own()
    with pytest.raises(VerifyError, match="a2a-start: starts and nothing waits"):
        run_pass(step, ScheduledModule(ALONE), JOB)
    assert step.log == []
    with pytest.raises(VerifyError):
        list(rivals_of(step, ScheduledModule(ALONE), JOB))
    assert step.log == []


seen_by_check = []


def notes_what_it_sees(graph, orders, is_local):
    seen_by_check.append((len(graph.ops), dict(orders), is_local))


@dataclass(frozen=True)
class Checked(Own):
    """Has a check of its own besides one of ours."""

    checks: ClassVar = (notes_what_it_sees, exchanges_paired)


@dataclass(frozen=True)
class Unchecked(Own):
    """Promises nothing."""

    checks: ClassVar = ()


@pytest.mark.parametrize(
    ("step", "sees"),
    [
        (Checked(), [{}]),
        (Checked(leaves=STEP), [{}, {}]),
        (Checked(order=LATER), [{}, {"main": LATER}]),
    ],
    ids=["changes nothing", "leaves a module", "orders"],
)
def test_checks_of_a_pass_see_what_it_is_given_and_what_it_leaves(module, step, sees):
    seen_by_check.clear()
    run_pass(step, module, JOB)
    assert seen_by_check == [(9, orders, True) for orders in sees]


def test_a_check_that_a_pass_does_not_have_is_not_made():
    left = run_pass(Unchecked(), ScheduledModule(ALONE), JOB)
    assert left.module.text == ALONE
    assert left.step.log == ["plan", "apply"]


@dataclass(frozen=True)
class Rivals(Own):
    """Offers two orders, the second of which is wrong."""

    def rivals(self, graph, context):
        for order in (LATER, CROSSED):
            yield Own(order=order).plan(graph, context)


def test_every_rival_is_checked(module):
    found = rivals_of(Rivals(), module, JOB)
    assert next(found).plan.orders == {"main": LATER}
    with pytest.raises(VerifyError):
        next(found)


# ------------------------------------------------------------------------------ passes of plans


def split(by):
    return Split(by=by, block="main", first=0, last=1, k=2)


@pytest.mark.parametrize(
    ("edit", "step"),
    [
        (reorders("schedule-dw", {"main": (1, 0)})[0], ScheduleDw()),
        (Pin(by="pin-order", exchange=1), PinOrder()),
        (Stream(by="separate-tiers", block="main", exchanges=(1,)), SeparateTiers()),
        (split("split-region"), SplitRegion()),
        (split("split-exchange"), SplitExchange()),
        (split("unroll-loops"), UnrollLoops()),
    ],
    ids=lambda value: value.pass_name() if isinstance(value, Pass) else "",
)
def test_an_edit_names_the_pass_that_follows_it(edit, step):
    own = Plan(module="m", target="h100:1x8", passes=(step.spec,), edits=(edit,))
    assert pass_of(own) == step
    chosen = Plan(module="m", target="h100:1x8", passes=("choose-split",), edits=(edit,))
    assert pass_of(chosen) == step
    assert pass_of(Plan(module="m", target="h100:1x8", edits=(edit,))) == step


def test_a_plan_knows_the_options_of_its_pass():
    spec = "split-region{direction=forward,k=2}"
    plan = Plan(module="m", target="h100:1x8", passes=(spec,), edits=(split("split-region"),))
    assert pass_of(plan) == SplitRegion(direction="forward", k=2)


@pytest.mark.parametrize("cls", PASSES, ids=lambda cls: cls.pass_name())
def test_a_plan_that_changes_nothing_is_its_pass_es(cls):
    assert pass_of(Plan(module="m", target="h100:1x8", passes=(cls().spec,))) == cls()


def test_a_plan_of_nobody_is_the_default_and_of_an_unknown_pass_an_error():
    assert pass_of(Plan(module="m", target="h100:1x8")) == ScheduleDw()
    with pytest.raises(OptionError, match="no such pass"):
        pass_of(Plan(module="m", target="h100:1x8", edits=(split("own"),)))
