"""`lancet-jax diff`: what changed between two modules, or two schedules of one."""

from pathlib import Path

from lancet_jax.cli.files import Loaded, open_source, print_json, stdout, working
from lancet_jax.cli.options import Costs, Json, Opaque, TargetOption
from lancet_jax.report.diff import Diff, show_diff
from lancet_jax.report.inspection import Inspection, inspection_of


def diff(
    first: Path,
    second: Path,
    *,
    target: TargetOption = None,
    costs: Costs = None,
    opaque: Opaque = (),
    json: Json = False,
) -> None:
    """Compare two modules: ops, order, bytes, and exposed time by layer.

    Ops are matched by what they compute, not by name or place, so two schedules of one module
    differ in order alone. Exit code 0, whether or not they differ.

    Parameters
    ----------
    first
        Anything that `inspect` reads.
    second
        The same, later or otherwise made.
    json
        Print JSON instead of tables.
    """
    b = open_source(second, target, costs, opaque)
    a = open_source(first, target or b.costs.name, costs, opaque)
    with working("comparing"):
        found = Diff.of(_inspected(a), a.graph, _inspected(b), b.graph)
    if json:
        print_json(found.to_dict())
    else:
        show_diff(found, stdout())


def _inspected(source: Loaded) -> Inspection:
    return inspection_of(source.name, source.simulator, measured=source.measured)
