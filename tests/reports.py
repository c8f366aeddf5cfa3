"""Reports to draw: one small and known by heart, one with loops, one that is cut."""

import functools

import jax

import lancet_jax
from hlo_passes.base import Context
from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.reorder_scheduled import ReorderScheduled
from hlo_passes.schedule.simulate import Simulator
from hlo_passes.schedule_dw import ScheduleDw
from lancet_jax.report.report import Report
from tests.hlo import STEP
from tests.steps import CASES, Size


def costs_of(graph, target="h100:1x8"):
    return TargetCosts(parse_target(target)).for_graph(graph)


def small(text=STEP):
    """The step of `tests.hlo`: dW moves beside the exchange, and hides a part of it."""
    module = ScheduledModule(text, devices=8)
    graph = module.snapshot()
    costs = costs_of(graph)
    step = ReorderScheduled(ScheduleDw(memory_slack=10))
    plan = step.plan(graph, Context(costs=costs, fingerprint=module.fingerprint))
    return Report.of_plan("jit_step", graph, costs, plan)


@functools.cache
def looped():
    """Scanned layers, as StableHLO: nearly all of it is in two loops."""
    case = CASES["scan_layers"](jax.devices(), size=Size(layers=3, batch=64, model=128, hidden=512))
    step = lancet_jax.jit(case.step, target="h100:1x8", pipeline="dw", **case.jit_kwargs)
    return step.lower(*case.args).report()


@functools.cache
def cut():
    """A step that `split-region` has cut into two parts."""
    case = CASES["scatter"](jax.devices())
    step = lancet_jax.jit(case.step, target="h100:1x8", pipeline="split-region{k=2}",
                          **case.jit_kwargs)  # fmt: skip
    return step.lower(*case.args).report()


def alone(report):
    """The step of a report as it is, with nothing to compare it with."""
    graph = report.stock.graph
    stock = Simulator(graph, report.stock.costs)
    return Report.of_steps(report.name, stock, stock, (report.plan,))


def quiet(body="  ROOT %a = f32[4]{0} negate(%x)"):
    """A step without an exchange, or without anything."""
    text = f"""HloModule quiet, is_scheduled=true

ENTRY %main (x: f32[4]) -> f32[4] {{
  %x = f32[4]{{0}} parameter(0)
{body}
}}
"""
    return alone(small(text))


def empty():
    """A step that does nothing at all."""
    return quiet("  ROOT %t = (f32[4]{0}) tuple(%x)")


REPORTS = {"small": small, "looped": looped, "cut": cut}
