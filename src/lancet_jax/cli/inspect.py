"""`lancet-jax inspect`: what a module exchanges, what stays exposed, and who could hide it."""

from pathlib import Path

from hlo_passes.facts.recompute import recomputed_in
from lancet_jax.cli.files import open_source, print_json, stdout, working
from lancet_jax.cli.options import Costs, Json, Opaque, TargetOption
from lancet_jax.report.inspection import inspection_of
from lancet_jax.report.inspection_text import show_inspection
from lancet_jax.report.why import show_why
from lancet_jax.report.why import why as explain


def inspect(
    file: Path,
    *,
    target: TargetOption = None,
    costs: Costs = None,
    opaque: Opaque = (),
    why: str | None = None,
    json: Json = False,
) -> None:
    """Show the exchanges of a module: bytes, time, exposed time, and what could hide them.

    Parameters
    ----------
    file
        A dump folder of XLA's, StableHLO (text, bytecode, portable or jax.export artifact), HLO
        (text or proto, of any stage), or a profiler capture (.xplane.pb or its folder).
    why
        Explain one op, by its HLO name or a part of its scope: what it costs, beside which
        exchanges it may run, and which path keeps it from the others.
    json
        Print JSON instead of tables.
    """
    source = open_source(file, target, costs, opaque)
    if why is not None:
        answer = explain(source.graph, source.costs, why)
        if json:
            print_json(answer.to_dict())
        else:
            show_why(answer, stdout())
        return
    with working("pricing"):
        again = recomputed_in(source.module)
        found = inspection_of(source.name, source.simulator, measured=source.measured,
                              notes=source.notes, recomputed=again)  # fmt: skip
    if json:
        print_json(found.to_dict())
    else:
        show_inspection(found, stdout())
