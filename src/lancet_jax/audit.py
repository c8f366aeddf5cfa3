"""At the first call of a cut step, the uncut program runs on the same arguments, too.

A cut is proved to be the same program before it is made, and tested; this is what catches a proof
that is wrong, on the user's own data. The cut program runs first, on copies of what it may donate,
then the uncut one on the arguments themselves. Where every output agrees, the cut one's results are
returned and it runs from then on. Where one does not, the uncut results are returned, the uncut
program takes its place for good, and what is needed to find the fault is written down.

Where both sets of results do not fit into memory, only projections of the cut program's are kept
(see `sketch`), and the uncut ones are returned. All processes of a job do the same: they agree on
what there is room for before, and on every output after.
"""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import msgspec
import numpy as np
from jaxlib.mlir import ir

from lancet_jax import _calls, _jax
from lancet_jax.agree import Peers
from lancet_jax.errors import AuditError, AuditWarning
from lancet_jax.evidence import Evidence
from lancet_jax.leaves import Deviation, bits
from lancet_jax.outcome import Outcome
from lancet_jax.room import Room
from lancet_jax.sketch import Sketch
from lancet_jax.step_facts import StepFacts

type AuditWhen = Literal["first", False]

ROUNDINGS = 32
"""How many roundings of the narrowest floats in the step an output's elements may be off, as a
share of its largest: 2e-6 in float32. Integers have to be equal.
"""

DUE = "to be audited at the first call: the uncut program will run on the same arguments"

_dropped: set[str] = set()
"""Salts of programs that gave other numbers than the uncut one, in this process."""


@dataclass
class Audit:
    """What happens at the first call of a cut step.

    Attributes:
        facts: of the step as jit lowered it.
        cut: the step as it is compiled.
        outcome: what became of the cut.
        peers: who runs it, too.
        options: how it was compiled, for the record.
        is_on: whether there is anything to do.
        uncut: XLA's executable of the uncut step, where it was compiled already.
    """

    facts: StepFacts
    cut: ir.Module
    outcome: Outcome
    peers: Peers | None
    options: Mapping[str, str]
    is_on: bool
    uncut: Any | None = field(default=None, repr=False)

    def check_not_dropped(self) -> None:
        """Make sure that this cut was not found wrong before.

        Raises:
            AuditError: if it was.
        """
        if self.outcome.salt in _dropped:
            self.outcome.cuts = ()
            raise AuditError(self.facts.name, "cut like this it gave other numbers than uncut",
                             "send in the folder that the warning named")  # fmt: skip

    def due(self) -> _calls.Judge | None:
        """Return what makes the first call of what was compiled; None if jit shall."""
        if not self.is_on or self.outcome.error is not None:
            return None
        self.outcome.notes.append(DUE)
        return self

    def __call__(
        self,
        cut: _calls.Program,
        compile_uncut: Callable[[], _calls.Program],
        step: ir.Module,
        args: Sequence[Any],
    ) -> _calls.Verdict:
        """Make the first call; see `_calls.Judge`."""
        started = time.perf_counter()
        notes = self.outcome.notes
        notes[:] = [note for note in notes if note != DUE]
        if effect := cut.effect or self.facts.effect:
            return self._unaudited(cut, args, f"{effect}, and is not run twice")
        uncut, reason = self._compiled(compile_uncut)
        room = Room.SKIPPED if uncut is None else Room.of(cut.executable, uncut.executable)
        room = max(Room(int(said)) for said in self._gather("room", str(int(room))))
        if uncut is None or room is Room.SKIPPED:
            return self._unaudited(cut, args, reason or "the uncut results do not fit into memory")
        try:
            results = cut(cut.spared(args, self.facts.donated))
        except jax.errors.JaxRuntimeError as error:
            return self._unaudited(cut, args, f"beside its arguments {_first_line(error)}")
        is_held = room is Room.BOTH
        kept = results if is_held else [_shards(x, Sketch.of) for x in results]
        del results
        expected = uncut(args)
        found = self._merged([_deviation(a, b) for a, b in zip(expected, kept, strict=True)])
        wrong = [i for i, (leaf, x) in enumerate(zip(found, expected, strict=True))
                 if not self._is_within(leaf, x)]  # fmt: skip
        if wrong:
            self._drop(cut, uncut, step, found, expected, wrong)
            return _calls.Verdict(expected, uncut)
        notes.append(self._passed(found, is_held) + f" ({time.perf_counter() - started:,.1f} s)")
        return _calls.Verdict(kept if is_held else expected, cut)

    # ------------------------------------------------------------------ running

    def _compiled(
        self, compile_uncut: Callable[[], _calls.Program]
    ) -> tuple[_calls.Program | None, str]:
        """Return the uncut program, or why there is none."""
        try:
            with _jax.rewriting(_Given(self.uncut) if self.uncut is not None else None):
                return compile_uncut(), ""
        except jax.errors.JaxRuntimeError as error:
            return None, f"uncut it does not compile: {_first_line(error)}"
        finally:
            self.uncut = None

    def _unaudited(self, cut: _calls.Program, args: Sequence[Any], reason: str) -> _calls.Verdict:
        self.outcome.notes.append(f"not audited: {reason}")
        return _calls.Verdict(cut.run(*args), cut)

    # ------------------------------------------------------------------ judging

    def _merged(self, mine: list[Deviation]) -> list[Deviation]:
        """Return how far every output is off on any process."""
        said = self._gather("outputs", msgspec.json.encode(mine).decode())
        total = mine
        for theirs in (msgspec.json.decode(text, type=list[Deviation]) for text in said):
            total = [a | b for a, b in zip(total, theirs, strict=True)]
        return total

    def _is_within(self, leaf: Deviation, output: Any) -> bool:
        if leaf.is_identical:
            return True
        if not jax.dtypes.issubdtype(output.dtype, np.inexact):
            return False
        return leaf.relative <= ROUNDINGS * self.facts.unit_of(output.dtype)

    def _gather(self, what: str, mine: str) -> Sequence[str]:
        """Return what every process says."""
        if self.peers is None:
            return (mine,)
        return self.peers.gather(f"audit/{self.outcome.salt}/{what}", mine)

    def _passed(self, found: Sequence[Deviation], is_held: bool) -> str:
        count, worst = len(found), max((leaf.relative for leaf in found), default=0.0)
        how = "bit-identical" if all(leaf.is_identical for leaf in found) else (
            f"equal within {_rounded_up(worst)}")  # fmt: skip
        by = "" if is_held else " by random projections, for want of memory"
        return f"audited at the first call: {count} of {count} outputs {how}{by}"

    def _drop(
        self,
        cut: _calls.Program,
        uncut: _calls.Program,
        step: ir.Module,
        found: Sequence[Deviation],
        outputs: Sequence[Any],
        wrong: Sequence[int],
    ) -> None:
        """Note that the cut is wrong, write down why, and warn."""
        ours, facts = self.outcome, self.facts
        _dropped.add(ours.salt)
        table = [
            f"{facts.path_of(i)}  {x.shape} {x.dtype}  {_said(leaf)}{'  WRONG' * (i in wrong)}"
            for i, (leaf, x) in enumerate(zip(found, outputs, strict=True))
        ]
        folder = Evidence(
            facts.name,
            {"step.mlir": step, "cut.mlir": self.cut},
            {"cut.hlo": _jax.hlo_of(cut.executable), "uncut.hlo": _jax.hlo_of(uncut.executable)},
            (*ours.made, *([ours.plan] if ours.plan is not None else ())),
            self.options, table,
        ).write()  # fmt: skip
        first = min(wrong, key=lambda i: (found[i].relative != float("inf"), -found[i].relative))
        ours.error = AuditError(
            facts.name,
            f"cut it gives other numbers than uncut: {len(wrong)} of {len(found)} outputs differ, "
            f"{facts.path_of(first)} {_said(found[first])}",
            f"send in {folder}; what was returned is right, and the step stays uncut",
        )
        ours.cuts, ours.plan, ours.graph = (), None, None
        ours.notes.append(f"audited at the first call and left whole: {ours.error}")
        warnings.warn(str(ours.error), AuditWarning, 2)


@dataclass(frozen=True, eq=False)
class _Given:
    """A rewriter that has compiled already."""

    executable: Any

    def prepare(self, request: _jax.Request) -> _jax.Prepared:
        return _jax.Prepared(request.module, {}, compile_with=lambda _: self.executable)


def _deviation(expected: Any, got: Any) -> Deviation:
    """Compare what lies on this process's devices, with an array or with its sketches."""
    if isinstance(got, jax.Array):
        if expected.shape != got.shape or expected.sharding != got.sharding:
            return Deviation(False, float("inf"))
        pairs = zip(_shards(expected, bits), _shards(got, bits), strict=True)
        return _union(Deviation.of(a, b) for a, b in pairs)
    return _union(a.deviation(b) for a, b in zip(_shards(expected, Sketch.of), got, strict=True))


def _shards(array: Any, read: Callable[[np.ndarray], Any]) -> list[Any]:
    """Read the part of every device of this process."""
    return [read(bits(shard.data)) for shard in array.addressable_shards]


def _union(parts: Any) -> Deviation:
    total = Deviation(True)
    for part in parts:
        total |= part
    return total


def _said(leaf: Deviation) -> str:
    return "identical" if leaf.is_identical else f"differs by {leaf.relative:.2e} of its largest"


def _rounded_up(share: float) -> str:
    """Return a share with one digit, never less than it is."""
    if share == 0:
        return "0"
    exponent = int(np.floor(np.log10(share)))
    return f"{np.ceil(share / 10.0**exponent - 1e-9) * 10.0**exponent:.0e}".replace("e-0", "e-")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
