"""Judges a schedule: how long the step takes, by somebody who did not plan it.

The planner decides on graphs and simulates orders of them (`hlo_passes.schedule`). What it believes
must not be checked with its own means: here the final HLO text is read by another reader, its work
counted by another rule, and its schedule replayed as a GPU does it, by streams that run what the
host queued and wait for each other's events. Shared with the planner are prices alone: what a
device and its links can do, and where that is known from. So it may import `hlo_passes.cost`,
`hlo_passes.errors` and `hlo_passes.ir.collectives`, in whose terms exchanges are priced, and
nothing else of the compiler or the library; `lint-imports` sees to that.
"""

from lancet_jax.judge.verdict import Load, Verdict, judge

__all__ = ["Load", "Verdict", "judge"]
