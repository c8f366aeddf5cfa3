"""Sphinx settings: `sphinx-build -W docs build/docs` makes the pages and runs the notebooks."""

import re
from typing import Any

project = "lancet-jax"
author = "the lancet-jax authors"
html_title = "lancet-jax"
default_role = "code"
html_theme = "furo"
html_static_path: list[str] = []

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
suppress_warnings = ["ref.python"]  # several classes have a `name`; nothing refers to it as such
source_suffix = {".md": "myst-nb"}
exclude_patterns = ["build", "_build"]

nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = True
napoleon_use_ivar = True


def setup(app: Any) -> None:
    """Read docstrings as they stand in the code, before napoleon does."""
    app.connect("autodoc-process-docstring", _as_rest, priority=400)


def _as_rest(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Names in single backticks are code, and indented blocks are code or drawings."""
    text = "\n".join(lines)
    text = re.sub(r"(?<!`)(`[^`]+`)(?=\w)", r"\1\\ ", text)
    text = re.sub(r"(?<=[\s(])\|([^|`\n]+)\|", r"``|\1|``", text)
    text = re.sub(r"(?<=[\s(])(\*+)(?=\w)", lambda stars: "\\*" * len(stars[1]), text)
    if what == "module":
        text = re.sub(r"(?m)(?<=\n\n)((?:    .*(?:\n|$))+)", _example, text)
        text = re.sub(r"(?m)^Before and after\n((?:    .*\n|\n)+)", _drawing, text)
    lines[:] = text.splitlines()


def _drawing(block: re.Match[str]) -> str:
    """Keep a drawing of what a pass does as it is drawn."""
    return "Before and after\n    ::\n\n" + re.sub(r"(?m)^(?=.)", "    ", block[1])


def _example(block: re.Match[str]) -> str:
    return f"::\n\n{block[1]}"
