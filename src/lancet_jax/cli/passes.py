"""`lancet-jax passes`: what can stand behind `-p`."""

from dataclasses import asdict

from rich.console import Console

from hlo_passes.describe import PassHelp, describe
from hlo_passes.errors import OptionError
from hlo_passes.pipelines import DEFAULT, PASSES, PRESETS
from lancet_jax.cli.files import print_json, stdout
from lancet_jax.cli.options import Json

_TIERS = {"exact": "bit-identical results",
          "reassociates": "routing identical, values within a stated bound"}  # fmt: skip


def passes(name: str | None = None, *, json: Json = False) -> None:
    """List the passes and presets that `plan -p` and `opt -p` take, with every option.

    Parameters
    ----------
    name
        A pass to describe; by default all of them.
    json
        Print JSON instead of text.
    """
    known = [describe(cls) for cls in PASSES]
    chosen = [p for p in known if name in (None, p.name)]
    if not chosen:
        raise OptionError(f"pass {name!r}", "there is no such pass",
                          f"use one of {', '.join(p.name for p in known)}")  # fmt: skip
    if json:
        print_json({"passes": [asdict(p) for p in chosen], "presets": PRESETS, "default": DEFAULT})
        return
    console = stdout()
    for described in chosen:
        _show(described, console)
    if name is None:
        _show_presets(console)


def _show_presets(console: Console) -> None:
    console.print("presets", style="bold")
    for preset, spec in PRESETS.items():
        default = "  (default)" if preset == DEFAULT else ""
        console.print(f"  {preset:10}{spec or 'nothing'}{default}")
    console.print("write a,b{option=value} to run passes one after the other")


def _show(described: PassHelp, console: Console) -> None:
    console.print(described.name, style="bold")
    console.print(f"  {described.summary}")
    console.print(f"  {described.tier}: {_TIERS.get(described.tier, described.tier)}")
    for option in described.options:
        console.print(f"    {option.name}={option.default}  ({option.kind})")
        console.print(_indented(option.text, console.width))
    console.print()


def _indented(text: str, width: int) -> str:
    import textwrap

    return textwrap.fill(text, width, initial_indent=" " * 8, subsequent_indent=" " * 8)
