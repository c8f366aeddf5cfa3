"""A report in the format that a file's ending asks for.

page.html            a page of its own
figure.svg .png .pdf before and after, for papers; needs matplotlib
step.perfetto.json   a trace for ui.perfetto.dev or chrome://tracing
step.me.json         a graph for Model Explorer; beside it step.me.role.json, .cost and
                     .exposed, node data to colour it by
step.dot             a graph for Graphviz
"""

import io
from collections.abc import Callable, Iterable
from pathlib import Path

from hlo_passes.errors import InputError
from lancet_jax.errors import OptionError
from lancet_jax.report import dot, figure, html, model_explorer, perfetto
from lancet_jax.report.comparison import Comparison

type Writer = Callable[[Comparison, Path], dict[Path, bytes]]


def export(report: Comparison, path: Path) -> dict[Path, bytes]:
    """Return the files that a report is in the format of `path`, by name.

    Raises:
        OptionError: if no format has this ending.
        UnsupportedError: if the format needs what is not there.
    """
    return _writer(path)(report, path)


def check_names(paths: Iterable[Path]) -> None:
    """Raise unless every file has a folder to be in, and an ending that says what it is to be.

    Raises:
        OptionError: if no format has its ending.
        InputError: if there is no such folder.
    """
    for path in paths:
        _writer(path)
        if not path.parent.is_dir():
            raise InputError(str(path), f"there is no folder {path.parent}", "make it first")


def _writer(path: Path) -> Writer:
    for ending, write in _FORMATS.items():
        if path.name.lower().endswith(ending):
            return write
    raise OptionError(str(path), "no format has this ending", f"end it in {', '.join(_FORMATS)}")


def _alone(text: Callable[[Comparison], str]) -> Writer:
    return lambda report, path: {path: text(report).encode()}


def _figure(report: Comparison, path: Path) -> dict[Path, bytes]:
    out = io.BytesIO()
    title = f"{report.name} on {report.after.target}"
    figure.save(report, out, form=path.suffix[1:].lower(), title=title)
    return {path: out.getvalue()}


def _model_explorer(report: Comparison, path: Path) -> dict[Path, bytes]:
    stem = path.name[: -len(".json")]
    data = model_explorer.node_data(report)
    beside = {path.with_name(f"{stem}.{name}.json"): text.encode() for name, text in data.items()}
    return {path: model_explorer.graphs(report).encode(), **beside}


_FORMATS: dict[str, Writer] = {
    ".html": _alone(html.page),
    ".svg": _figure,
    ".png": _figure,
    ".pdf": _figure,
    ".perfetto.json": _alone(perfetto.trace),
    ".me.json": _model_explorer,
    ".dot": _alone(dot.graph),
}
