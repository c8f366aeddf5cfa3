"""`lancet-jax whatif`: one module, many machines."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hlo_passes.cost.target import parse_target
from hlo_passes.errors import OptionError
from lancet_jax.cli.files import open_source, print_json, stdout, working
from lancet_jax.cli.options import Json
from lancet_jax.report.whatif import show_what_if, what_if


def whatif(
    file: Path,
    *,
    target: Annotated[str, Parameter(name=["--target", "-t"])] = "a100:1x8,h100:1x8,b200:1x8",
    experts_per_device: str | None = None,
    json: Json = False,
) -> int:
    """Show what a module's step would expose on other machines, in its order and re-ordered.

    Where a target has another number of devices than the module, work per device stays, and
    exchanges of all devices reach all of the target's; where groups are smaller, the row says that
    it cannot be told. Compute is priced by rooflines alone, so that rows compare. Exit code 1 if
    no row has figures.

    Parameters
    ----------
    file
        Anything that `inspect` reads.
    target
        Machines, as a100:8x8,h100:8x8,b200:1x8; h100@a100:8x8 has the links of the other.
    experts_per_device
        Numbers of experts on each device, as 1,2,4. The model keeps its experts: with more on a
        device, groups of fewer devices hold all of them, all-to-alls stay inside a group with as
        many bytes, expert weights and their updates grow, and gradients are summed over the groups.
    json
        Print JSON instead of a table.
    """
    targets = [parse_target(name) for name in target.split(",") if name.strip()]
    experts = [] if experts_per_device is None else _numbers(experts_per_device)
    source = open_source(file, None)
    with working("pricing"):
        found = what_if(source.name, source.graph, targets, experts)
    if json:
        print_json(found.to_dict())
    else:
        show_what_if(found, stdout())
    return 0 if any(not row.error for row in found.rows) else 1


def _numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise OptionError("--experts-per-device", f"{text!r} is no list of numbers above 0",
                          "say 1,2,4")  # fmt: skip
    return [int(part) for part in parts]
