"""Options that several commands have, with what `--help` says of them."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

type Json = Annotated[bool, Parameter(negative="")]
"""The flag that every command has."""

type Output = Annotated[Path | None, Parameter(name=["--output", "-o"])]
"""Where a command writes, whole or not at all."""

type PipelineOption = Annotated[str, Parameter(name=["--pipeline", "-p"])]
"""The passes of `plan`, `opt` and `view`; `lancet-jax passes` lists them."""

type TargetOption = Annotated[
    str | None,
    Parameter(
        name=["--target", "-t"],
        help="The machine, as h100:1x8; by default as many H100 as the module has devices.",
    ),
]
"""What to price or plan for."""

type Costs = Annotated[
    Path | None,
    Parameter(
        help="Times measured by `lancet-jax calibrate`; their devices are then the default target."
    ),
]
"""A table of measured times, see `hlo_passes.cost.table`."""

type Opaque = Annotated[
    tuple[str, ...],
    Parameter(
        name="--opaque",
        negative="",
        help="A custom call that is an exchange, as TARGET=US, or START+DONE=US if one call starts "
        "it and another waits; without =US it is priced by its bytes. May be given several times.",
    ),
]
"""Custom calls that are exchanges, see `hlo_passes.ir.opaque`."""

type MemoryLimit = Annotated[
    str | None,
    Parameter(
        help="What one device has for arguments, results and temporaries, as 70GiB or in bytes."
    ),
]
"""The memory that a plan has to keep to."""
