"""A report as one HTML page that needs no network, no server and no other file.

The page is written by hand: `page/` holds its HTML, its style and its script in pieces, put
together here with the data of one report. Its content security policy forbids every request.
"""

import json
import re
from html import escape
from importlib.resources import files

from lancet_jax.report.comparison import Comparison
from lancet_jax.report.encode import encode
from lancet_jax.report.headline import headline
from lancet_jax.report.text import render

SCRIPTS = ("data.js", "draw.js", "move.js", "panels.js", "main.js")
"""Pieces of the page's script, in the order in which they build on each other."""

_FRAME = (
    '<iframe srcdoc="{page}" title="lancet-jax report" sandbox="allow-scripts" loading="lazy" '
    'style="width:100%;height:760px;border:0"></iframe>'
)


def page(report: Comparison) -> str:
    """Return the page of a report.

    Raises:
        UnsupportedError: if the report was made without the step's graph.
    """
    parts = {
        "title": escape(f"{report.name} on {report.after.target}"),
        "name": escape(report.name),
        "headline": escape(headline(report)),
        "css": _resource("page.css"),
        "text": escape(render(report)),
        "data": as_script(json.dumps(encode(report), separators=(",", ":"))),
        "js": "\n".join(map(_resource, SCRIPTS)),
    }
    return re.sub(r"{{(\w+)}}", lambda match: parts[match[1]], _resource("page.html"))


def frame(report: Comparison) -> str:
    """Return the page in a frame for a notebook cell: neither side can reach into the other."""
    return _FRAME.format(page=escape(page(report)))


def as_script(data: str) -> str:
    """Return JSON that no text in it can end the script element around."""
    return data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _resource(name: str) -> str:
    return (files("lancet_jax.report") / "page" / name).read_text("utf-8")
