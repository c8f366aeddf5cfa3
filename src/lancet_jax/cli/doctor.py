"""`lancet-jax doctor`: what works here, what is missing, and the line that installs it."""

from rich import box
from rich.table import Table

from lancet_jax.cli.files import print_json, stdout, working
from lancet_jax.cli.options import Json
from lancet_jax.doctor import Finding, examine


def doctor(*, json: Json = False) -> int:
    """Show versions, which hooks into JAX and XLA work here, and how to mend what does not.

    Parameters
    ----------
    json
        Print JSON instead of a table.
    """
    with working("trying every hook"):
        findings = list(examine())
    if json:
        print_json({"findings": [
            {"name": f.name, "ok": f.ok, "detail": f.detail, "remedy": f.remedy} for f in findings
        ]})  # fmt: skip
    else:
        stdout().print(_table(findings))
    return 1 if any(f.ok is False and f.name.startswith("capture") for f in findings) else 0


def _table(findings: list[Finding]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("", no_wrap=True)
    table.add_column("")
    for f in findings:
        state = {True: "ok", False: "missing", None: ""}[f.ok]
        detail = f.detail + (f"\n{f.remedy}" if f.remedy and f.ok is False else "")
        table.add_row(f.name, state, detail)
    return table
