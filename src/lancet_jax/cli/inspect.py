"""`lancet-jax inspect`: what a module exchanges, what stays exposed, and who could hide it."""

from pathlib import Path

from hlo_passes.analysis.recompute import recomputed_in
from lancet_jax.cli.files import Json, Opaque, Target, open_source, print_json, stdout, working
from lancet_jax.report.inspection import inspection_of
from lancet_jax.report.inspection_text import show_inspection
from lancet_jax.report.why import show_why
from lancet_jax.report.why import why as explain


def inspect(
    file: Path,
    *,
    target: Target = None,
    costs: Path | None = None,
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
    target
        What to price for, as h100:1x8; by default as many H100 as the module has devices.
    costs
        Times measured by `lancet-jax calibrate`; their devices are then the default target.
    opaque
        A custom call that is an exchange, as TARGET=US, or START+DONE=US if one call starts it and
        another waits; without =US it is priced by its bytes. May be given several times.
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
