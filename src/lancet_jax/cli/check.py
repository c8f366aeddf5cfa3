"""`lancet-jax check`: a gate for continuous integration."""

from importlib.metadata import version
from pathlib import Path

from hlo_passes.errors import OptionError
from hlo_passes.files import write_atomically
from lancet_jax.cli.files import open_source, print_json, stdout, working
from lancet_jax.cli.local import require_partitioned
from lancet_jax.cli.options import Costs, Json, Opaque, TargetOption
from lancet_jax.report.ci import junit as as_junit
from lancet_jax.report.ci import sarif as as_sarif
from lancet_jax.report.gate import Limit, judge_exposed, judge_memory
from lancet_jax.report.inspection import inspection_of
from lancet_jax.report.inspection_text import file_of


def check(
    file: Path,
    *,
    max_exposed: str | None = None,
    max_memory: str | None = None,
    target: TargetOption = None,
    costs: Costs = None,
    opaque: Opaque = (),
    junit: Path | None = None,
    sarif: Path | None = None,
    json: Json = False,
) -> int:
    """Hold a module against limits: exit code 0 if it keeps them all, 1 if not, 2 if nobody can
    say, as of a step that XLA has yet to partition.

    Parameters
    ----------
    file
        Anything that `inspect` reads.
    max_exposed
        Most communication with no compute beside it: a share of the step, as 15%, or a time, as
        2ms.
    max_memory
        Most memory of a device, arguments and temporaries, as 70GiB; estimated.
    junit
        Where to write the verdicts as JUnit XML.
    sarif
        Where to write the lines to blame as SARIF 2.1.0.
    json
        Print JSON instead of text.
    """
    if max_exposed is None and max_memory is None:
        raise OptionError("lancet-jax check", "there is no limit to check",
                          "give --max-exposed 15%, --max-memory 70GiB, or both")  # fmt: skip
    source = open_source(file, target, costs, opaque)
    require_partitioned(source.module, source.graph)
    verdicts: list[Limit] = []
    with working("checking"):
        if max_exposed is not None:
            found = inspection_of(source.name, source.simulator,
                                  measured=source.measured)  # fmt: skip
            verdicts.append(judge_exposed(found, max_exposed))
        if max_memory is not None:
            problem = source.simulator.problem
            verdicts.append(judge_memory(source.graph, problem, max_memory))
    if junit is not None:
        write_atomically(junit, as_junit(source.name, verdicts))
    if sarif is not None:
        write_atomically(sarif, as_sarif(str(file), verdicts, version("lancet-jax")))
    if json:
        print_json({"module": source.name, "ok": all(v.ok for v in verdicts),
                    "verdicts": [v.to_dict() for v in verdicts]})  # fmt: skip
    else:
        _show(verdicts)
    return 0 if all(v.ok for v in verdicts) else 1


def _show(verdicts: list[Limit]) -> None:
    console = stdout()
    for v in verdicts:
        console.print(f"{'ok' if v.ok else 'FAILED'}: {v.message}", style="bold")
        for o in v.offences:
            console.print(f"  {file_of(o.line) or '?'}: {o.message} ({o.name})", no_wrap=True,
                          overflow="ellipsis")  # fmt: skip
