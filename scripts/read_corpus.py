"""Reads the HLO and MLIR texts that stand in a checkout of others, and compares with jaxlib.

    git clone https://github.com/openxla/xla ~/xla
    python -m scripts.read_corpus ~/xla --json out.json
    python -m scripts.read_corpus ~/stablehlo --mlir

HLO texts are whole `.hlo`, `.txt` and `.hlotxt` files and string literals of `.cc` and `.h` files.
Of those that jaxlib's own parser reads as written, `lancet-jax inspect` should read every one, and
names, sizes, order, replica groups and trip counts should be those of jaxlib's HloModule. `.mlir`
files are cut at `// -----`; what counts there is that every piece ends in exit code 0 or 2.

Every text is read in a child process, so that a parser that dies is counted and not the end.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hlo_passes.files import write_atomically
from hlo_passes.ir.files import load
from lancet_jax.cli.app import run
from scripts.corpus_texts import Text, hlo_texts, mlir_texts
from scripts.hlo_facts import facts_of_jaxlib, facts_of_ours


def main() -> None:
    """Read, compare, print counts; or, as a child, one part of that."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--mlir", action="store_true", help="read .mlir pieces instead of HLO")
    parser.add_argument("--every", type=int, default=1, help="only every n-th text")
    parser.add_argument("--json", type=Path, help="write what came of every text to this file")
    parser.add_argument("--from", type=int, dest="first", default=-1, help=argparse.SUPPRESS)
    args = parser.parse_args()
    texts = (mlir_texts if args.mlir else hlo_texts)(args.checkout)[:: args.every]
    if args.first >= 0:
        _child(texts, args.first, args.mlir)
        return
    rows = list(_rows(texts, args))
    if args.json:
        write_atomically(args.json, json.dumps(rows, indent=1).encode())
    print(show(rows, args.mlir))


def show(rows: list[dict[str, Any]], is_mlir: bool) -> str:
    """Return the counts in words, and what most often went wrong."""
    ours = Counter(row["ours"] for row in rows)
    lines = [f"{len(rows):,} texts; {ours['died']} deaths, {ours['traceback']} tracebacks"]
    if is_mlir:
        lines.append(f"{ours['read']:,} read, {ours['refused']:,} refused")
    else:
        valid = [row for row in rows if row["jaxlib"]]
        read = [row for row in valid if row["ours"] == "read"]
        wrong = [row for row in read if row["unlike"]]
        extra = sum(row["ours"] == "read" and not row["jaxlib"] for row in rows)
        lines += [
            f"{len(valid):,} are read by jaxlib's parser as written; of these",
            f"{len(read):,} are read ({len(read) / max(1, len(valid)):.2%}),",
            f"{len(wrong)} of them not as jaxlib does;",
            f"{extra} more are read that jaxlib refuses",
        ]
        what = Counter(u.split(":")[0] for row in wrong for u in row["unlike"])
        lines += [f"  {count:5} texts differ in {name}" for name, count in what.most_common()]
        rows = valid
    said = Counter(row["said"] for row in rows if row["ours"] != "read")
    return "\n".join([*lines, *(f"  {n:5} {text}" for text, n in said.most_common(12))])


def _rows(texts: list[Text], args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield what came of every text, with a new child after each that died."""
    at = 0
    again = [sys.executable, "-m", "scripts.read_corpus", str(args.checkout),
             "--every", str(args.every), *(["--mlir"] if args.mlir else [])]  # fmt: skip
    while at < len(texts):
        with subprocess.Popen(
            [*again, "--from", str(at)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            for line in child.stdout:
                yield json.loads(line)
                at += 1
        if child.returncode > 0:
            raise SystemExit(f"the child failed at {texts[at].place}")
        if at < len(texts):
            yield _row(texts[at], "died", f"exit code {child.returncode}")
            at += 1


def _child(texts: list[Text], first: int, is_mlir: bool) -> None:
    """Print a line of JSON for every text from `first` on."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("text.mlir" if is_mlir else "text.hlo")
        for text in texts[first:]:
            path.write_text(text.text)
            print(json.dumps(_read(text, path, is_mlir)), flush=True)


def _read(text: Text, path: Path, is_mlir: bool) -> dict[str, Any]:
    """Inspect one text and compare."""
    theirs = None
    if not is_mlir:
        with contextlib.suppress(RuntimeError):
            theirs = facts_of_jaxlib(text.text)
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(["inspect", str(path)])
    except Exception:
        return _row(text, "traceback", traceback.format_exc(limit=-2), jaxlib=theirs is not None)
    said = err.getvalue().split("\n")[0].replace(str(path), "FILE")
    if code:
        ours = "refused" if code == 2 else "traceback"
        return _row(text, ours, said, jaxlib=theirs is not None)
    unlike = list(facts_of_ours(load(path)).differences(theirs)) if theirs else []
    return _row(text, "read", "", jaxlib=theirs is not None, unlike=unlike)


def _row(text: Text, ours: str, said: str, **more: Any) -> dict[str, Any]:
    return {"place": text.place, "ours": ours, "said": said, "jaxlib": False, "unlike": [], **more}


if __name__ == "__main__":
    main()
