"""Named pipelines, and how a pipeline is written as text."""

from hlo_passes.base import Pass, parse_pass, split_passes
from hlo_passes.choose_split import ChooseSplit
from hlo_passes.errors import OptionError
from hlo_passes.pin_order import PinOrder
from hlo_passes.plans import Plan
from hlo_passes.run import Pipeline
from hlo_passes.schedule_dw import ScheduleDw
from hlo_passes.separate_tiers import SeparateTiers
from hlo_passes.split_exchange import SplitExchange
from hlo_passes.split_region import SplitRegion
from hlo_passes.unroll_loops import UnrollLoops

PASSES: tuple[type[Pass], ...] = (
    ScheduleDw, SplitExchange, SplitRegion, UnrollLoops, ChooseSplit, SeparateTiers, PinOrder,
)  # fmt: skip
"""Every pass that can be named."""

PRESETS = {
    "off": "",
    "dw": "schedule-dw",
    "exchange": "split-exchange,schedule-dw",
    "lancet": "split-region{direction=forward},schedule-dw",
    "full": "unroll-loops,split-region,schedule-dw",
    "best": "choose-split,schedule-dw",
}
"""Pipelines by name: `off` leaves a step alone, `dw` reorders it, `exchange` also cuts exchanges
and experts along capacity, `lancet` the forward pass along its tokens, `full` the whole step, and
runs microbatches side by side; `best` lets them all compete.
"""

DEFAULT = "dw"


def pass_of(plan: Plan) -> Pass:
    """Return the pass that follows a plan: the one that its edits name, with the plan's options.

    Raises:
        OptionError: if there is no such pass.
    """
    names = [edit.by for edit in plan.edits]
    given = plan.passes[0] if plan.passes else PRESETS[DEFAULT]
    is_own = not names or given.partition("{")[0] == names[0]
    return parse_pass(given if is_own else names[0], PASSES)


def parse_pipeline(text: str) -> Pipeline:
    """Read a preset's name, or passes as `name{option=value,...}` with commas between them.

    Raises:
        OptionError: if a pass or option does not exist.
    """
    spec = PRESETS.get(text.strip(), text)
    parts = split_passes(spec)
    if len(parts) == 1 and "{" not in spec and spec not in {p.pass_name() for p in PASSES}:
        presets, passes = ", ".join(PRESETS), ", ".join(p.pass_name() for p in PASSES)
        raise OptionError(f"pipeline {text!r}", "is neither a preset nor a pass",
                          f"use a preset ({presets}) or passes ({passes})")  # fmt: skip
    return Pipeline(tuple(parse_pass(part, PASSES) for part in parts))
