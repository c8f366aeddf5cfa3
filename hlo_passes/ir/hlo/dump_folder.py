"""Which module of a dump folder is the one to look at.

`--xla_dump_to` leaves dozens of files: every jitted function, helpers of one op included, at every
stage, and tables that are no modules at all. A step is the largest of them, as its last compile
left it, after all passes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hlo_passes.errors import InputError

_NAME = re.compile(r"module_(?P<number>\d+)\.(?P<rest>.+)\.(?P<suffix>txt|hlo|hlo\.pb)$")
_STAGE = re.compile(
    r"\.(?P<stage>(?:[\w.]+_)?(?:after|before)_[\w.\-]+|\d{4}\..+)$"
)  # fmt: skip
_SUFFIXES = (".txt", ".hlo", ".hlo.pb", ".pb", ".mlir", ".mlirbc", ".bc", ".stablehlo")
_MAGIC = (b"HloModule", b"ML\xefR", b"module", b"#loc", b"builtin.module")
_FINAL, _PARTITIONED, _LATE, _EARLY, _SOURCE = range(5)


@dataclass(frozen=True, slots=True)
class DumpFile:
    """One file that holds a module.

    Attributes:
        path: the file.
        module: name of the module, from the file's name.
        number: number of the compile; -1 where the name has none.
        stage: which stage XLA wrote it at, as in the file's name.
        rank: how near that is to what runs; 0 is the final module.
        bytes: size of the file.
        time: when it was written.
    """

    path: Path
    module: str
    number: int
    stage: str
    rank: int
    bytes: int
    time: float


@dataclass(frozen=True, slots=True)
class ChosenFile:
    """The file that was chosen and what else there was.

    Attributes:
        chosen: the file to read.
        stages: stages of the same compile that were dumped as well.
        earlier: other compiles of a module of that name.
        others: names of other modules, largest first.
    """

    chosen: DumpFile
    stages: tuple[str, ...] = ()
    earlier: int = 0
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Say what was chosen and what was not, in one line."""
        said = [f"chose {self.chosen.path.name}"]
        if self.stages:
            said.append(f"{len(self.stages)} other stages of it")
        if self.earlier:
            said.append(f"{self.earlier} other compiles")
        if self.others:
            more = ", ..." if len(self.others) > 3 else ""
            said.append(f"{len(self.others)} smaller modules ({', '.join(self.others[:3])}{more})")
        return "; ".join(said)


def choose_module(folder: Path) -> ChosenFile:
    """Choose the module of a dump folder that is a step: largest, latest, after all passes.

    Raises:
        InputError: if the folder cannot be listed or holds no module.
    """
    files = sorted(_modules(folder), key=lambda f: f.path.name)
    if not files:
        raise InputError(str(folder), "no module in this folder",
                         "dump with XLA_FLAGS='--xla_dump_to=DIR --xla_dump_hlo_as_text', and name "
                         "DIR")  # fmt: skip
    best = min(f.rank for f in files)
    final = [f for f in files if f.rank == best]
    largest = max(final, key=lambda f: (f.bytes, f.number, f.time))
    same = [f for f in final if f.module == largest.module]
    chosen = max(same, key=lambda f: (f.time, f.number, f.path.suffix == ".txt"))
    twins = {(f.module, f.number): f for f in same}
    sizes: dict[str, int] = {}
    for f in files:
        if f.module != chosen.module:
            sizes[f.module] = max(sizes.get(f.module, 0), f.bytes)
    stages = {f.stage for f in files if (f.module, f.number) == (chosen.module, chosen.number)}
    return ChosenFile(
        chosen,
        tuple(sorted(stages - {chosen.stage})),
        len(twins) - 1,
        tuple(sorted(sizes, key=lambda name: (-sizes[name], name))),
    )


def _modules(folder: Path) -> Iterator[DumpFile]:
    """Yield the files of a folder that begin as a module does."""
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise InputError(str(folder), error.strerror or str(error), "name a readable folder") \
            from None  # fmt: skip
    for path in entries:
        try:
            if path.name.endswith(_SUFFIXES) and path.is_file() and _begins_well(path):
                yield _file(path)
        except OSError:
            continue


def _begins_well(path: Path) -> bool:
    """Whether a file begins as a module does; a proto has no magic, its name has to do."""
    if path.name.endswith(".hlo.pb"):
        return True
    with path.open("rb") as file:
        return file.read(64).lstrip().startswith(_MAGIC)


def _file(path: Path) -> DumpFile:
    """Take a file's name apart."""
    known = path.stat()
    match = _NAME.match(path.name)
    if match is None:
        stem = re.sub(r"(\.hlo)?\.\w+$", "", path.name)
        is_hlo = path.suffix in (".txt", ".hlo", ".pb")
        rank = _LATE if is_hlo else _SOURCE
        return DumpFile(path, stem, -1, path.suffix, rank, known.st_size, known.st_mtime)
    rest = match["rest"]
    found = _STAGE.search(rest)
    stage = found["stage"] if found else ""
    module = rest[: found.start()] if found else rest
    return DumpFile(
        path, module, int(match["number"]), stage, _rank(stage), known.st_size, known.st_mtime
    )


def _rank(stage: str) -> int:
    if stage.endswith("after_optimizations"):
        return _FINAL
    if stage.endswith("after_spmd_partitioner"):
        return _PARTITIONED
    return _EARLY if "before_optimizations" in stage else _LATE
