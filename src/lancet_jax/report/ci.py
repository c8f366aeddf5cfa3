"""Verdicts in the two formats that continuous integration reads: JUnit XML and SARIF 2.1.0."""

import json
import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from lancet_jax.report.gate import Limit, Offence

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_RULES = {
    "exposed": "Communication time with no compute beside it stays below a limit",
    "memory": "Arguments and temporaries stay below a limit",
}
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has no way to write."""


def junit(module: str, verdicts: Sequence[Limit]) -> bytes:
    """Return one test suite with a test case per limit; a broken limit is a failure."""
    failures = sum(not v.ok for v in verdicts)
    counts = {"tests": str(len(verdicts)), "failures": str(failures), "errors": "0"}
    root = ElementTree.Element("testsuites", {"name": "lancet-jax check", **counts})
    suite = ElementTree.SubElement(
        root, "testsuite", {"name": _clean(module), **counts, "skipped": "0", "time": "0"}
    )
    for v in verdicts:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": _clean(module), "name": v.rule, "time": "0"}
        )
        if v.ok:
            ElementTree.SubElement(case, "system-out").text = _clean(v.message)
        else:
            failure = ElementTree.SubElement(
                case, "failure", {"message": _clean(v.message), "type": v.rule}
            )
            failure.text = _clean("\n".join(f"{o.line or o.op}: {o.message}" for o in v.offences))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _clean(text: str) -> str:
    return _NO_XML.sub("?", text)


def sarif(file: str, verdicts: Sequence[Limit], version: str) -> bytes:
    """Return a SARIF log: a result per op that adds to a broken limit, at its line of code.

    Args:
        file: what was checked; it stands where the line is not known.
        verdicts: the limits.
        version: of lancet-jax.
    """
    driver = {
        "name": "lancet-jax",
        "semanticVersion": version,
        "rules": [
            {"id": f"lancet/{v.rule}", "name": v.rule.title(),
             "shortDescription": {"text": _RULES[v.rule]},
             "defaultConfiguration": {"level": "error"}}
            for v in verdicts
        ],
    }  # fmt: skip
    results = [
        _result(i, v, offence, file)
        for i, v in enumerate(verdicts) if not v.ok
        for offence in v.offences or (Offence("", "", "", "no op to blame"),)
    ]  # fmt: skip
    log = {"$schema": _SCHEMA, "version": "2.1.0",
           "runs": [{"tool": {"driver": driver}, "columnKind": "utf16CodeUnits",
                     "results": results}]}  # fmt: skip
    return json.dumps(log, indent=1).encode() + b"\n"


def _result(index: int, verdict: Limit, offence: Offence, file: str) -> dict[str, Any]:
    path, _, line = offence.line.rpartition(":")
    known = bool(path) and line.isdigit() and int(line) > 0
    place: dict[str, Any] = {"artifactLocation": {"uri": _uri(path if known else file)}}
    if known:
        place["region"] = {"startLine": int(line)}
    location: dict[str, Any] = {"physicalLocation": place}
    if offence.op:
        location["logicalLocations"] = [
            {"name": offence.name, "fullyQualifiedName": offence.op, "kind": "function"}
        ]
    return {
        "ruleId": f"lancet/{verdict.rule}", "ruleIndex": index, "level": "error",
        "message": {"text": f"{offence.message}. {verdict.message}"}, "locations": [location],
    }  # fmt: skip


def _uri(path: str) -> str:
    """Return a URI reference; absolute paths become file URIs."""
    from urllib.parse import quote

    return ("file://" if path.startswith("/") else "") + quote(path)
