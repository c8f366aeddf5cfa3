"""How long a step computes what it has computed before, in words and as a role of its own."""

from collections.abc import Mapping
from dataclasses import replace

from hlo_passes.base import AnyModule
from hlo_passes.facts.recompute import Recomputed, recomputed_in
from hlo_passes.facts.roles import roles_of
from hlo_passes.schedule.timeline import Timeline
from lancet_jax.report.comparison import Comparison

RECOMPUTED = "recomputed"
"""What such ops are for, beside the roles of `hlo_passes.facts.roles`."""


def with_recomputation[C: Comparison](report: C, module: AnyModule) -> C:
    """Return a report whose times by role have recomputation apart, and a note about it.

    Args:
        report: of the module as it is, or in another order.
        module: what the report's `after` is a picture of.
    """
    found = recomputed_in(module)
    again = recomputed_us(found, report.after)
    notes = recomputation_notes(found, again)
    if not again:
        return replace(report, notes=(*report.notes, *notes))
    graph = module.snapshot()
    kinds = {op.key: str(role) for op, role in zip(graph.ops, roles_of(graph), strict=True)}
    roles = dict(report.roles)
    for slot in report.after.slots:
        if slot.key in again and slot.lane == "compute":
            roles[kinds[slot.key]] -= slot.us
            roles[RECOMPUTED] = roles.get(RECOMPUTED, 0.0) + slot.us
    return replace(
        report,
        roles={role: us for role, us in roles.items() if us > 1e-9},
        notes=(*report.notes, *notes),
    )


def recomputed_us(found: Recomputed, timeline: Timeline) -> dict[str, float]:
    """Return the us of every op of a timeline that repeats one of the forward pass, by key."""
    return {s.key: s.us for s in timeline.slots if s.key in found.repeats}


def recomputation_notes(found: Recomputed, again: Mapping[str, float]) -> tuple[str, ...]:
    """Say what is recomputed, and how that is known.

    Args:
        found: what a module computes twice.
        again: us of those of them that take time, by key.
    """
    lines = []
    if again:
        agreed = len(found.agreed & set(again))
        lines.append(
            f"recomputation: {len(again)} ops repeat ops of the forward pass,"
            f" {sum(again.values()):,.0f} us ({agreed} of them scoped as checkpointed)"
        )
    if found.scoped:
        lines.append(
            f"recomputation: {len(found.scoped)} more ops are scoped as checkpointed;"
            " dataflow does not show what they repeat"
        )
    return tuple(lines)
