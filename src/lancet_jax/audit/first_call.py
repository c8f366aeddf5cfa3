"""At the first call of a cut step, the uncut program runs on the same arguments, too.

A cut is proved to be the same program before it is made, and tested; this is what catches a proof
that is wrong, on the user's own data. The cut program runs first, on copies of what it may donate,
then the uncut one on the arguments themselves. Where every output agrees, the cut one's results are
returned and it runs from then on. Where one does not, the uncut results are returned. It may still
be rounding: a step that takes its arguments changed in their last bit as hard is not well enough
defined to tell (see `nudge`). Otherwise the uncut program takes the cut one's place for good, and
what is needed to find the fault is written down.

Where both sets of results do not fit into memory, only projections of the cut program's are kept
(see `sketch`), and the uncut ones are returned. All processes of a job do the same: they agree on
what there is room for before, and on every output after.
"""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import jax
import msgspec
from jaxlib.mlir import ir

from hlo_passes.plans import Plan
from lancet_jax.audit.evidence import Evidence
from lancet_jax.audit.leaves import Deviation
from lancet_jax.audit.nudge import nudged
from lancet_jax.audit.outputs import compared, sketches
from lancet_jax.audit.room import Room
from lancet_jax.audit.step_facts import StepFacts
from lancet_jax.audit.tally import Tally
from lancet_jax.errors import AuditError, AuditWarning
from lancet_jax.peers.agree import Peers
from lancet_jax.seams import calls, compiling, programs

_INSIDE = (str(Path(jax.__file__).parent), str(Path(__file__).parents[1]))
"""Where warnings do not point to."""

DUE = "to be audited at the first call: the uncut program will run on the same arguments"

_dropped: set[str] = set()
"""Salts of programs that gave other numbers than the uncut one, in this process."""


def check_not_dropped(salt: str) -> None:
    """Make sure that a cut was not found wrong before, in this process.

    Args:
        salt: of the cut program.

    Raises:
        AuditError: if it was.
    """
    if salt in _dropped:
        raise AuditError("the step", "cut like this it gave other numbers than uncut",
                         "send in the folder that the warning named")  # fmt: skip


@dataclass
class Audit:
    """What happens at the first call of a cut step.

    Attributes:
        facts: of the step as jit lowered it.
        cut: the step as it is compiled.
        salt: of the program.
        plans: how it was cut and ordered.
        peers: who runs it, too.
        options: how it was compiled, for the record.
        tell: is told what came of it, and what went wrong if the cut was.
    """

    facts: StepFacts
    cut: ir.Module
    salt: str
    plans: tuple[Plan, ...]
    peers: Peers | None
    options: Mapping[str, str]
    tell: Callable[[str, Exception | None], None]

    def __call__(
        self,
        cut: calls.Program,
        compile_uncut: Callable[[], calls.Program],
        step: ir.Module,
        args: Sequence[Any],
    ) -> calls.FirstResult:
        """Make the first call; see `calls.Judge`."""
        started = time.perf_counter()
        if effect := cut.effect or self.facts.effect:
            return self._unaudited(cut, cut.run(*args), f"{effect}, and is not run twice")
        uncut, reason = self._compiled(compile_uncut)
        room = Room.SKIPPED if uncut is None else Room.of(cut.executable, uncut.executable)
        room = max(self._gathered("room", room, Room))
        if uncut is None or room is Room.SKIPPED:
            reason = reason or "the uncut results do not fit into memory"
            return self._unaudited(cut, cut.run(*args), reason)
        if room is Room.BOTH:
            verdict, tally = self._at_once(cut, uncut, args)
        else:
            verdict, tally = self._in_turn(cut, uncut, args)
        if tally is None:
            return verdict
        if tally.wrong:
            self._drop(cut, uncut, step, tally)
            return calls.FirstResult(verdict.results, uncut)
        by = " by random projections, for want of memory" if room is Room.ONE else ""
        self._note(
            f"audited at the first call: {tally}{by} ({time.perf_counter() - started:,.1f} s)"
        )
        return verdict

    # ------------------------------------------------------------------ running

    def _compiled(
        self, compile_uncut: Callable[[], calls.Program]
    ) -> tuple[calls.Program | None, str]:
        """Return the uncut program, or why there is none."""
        try:
            with compiling.rewriting(None):
                return compile_uncut(), ""
        except jax.errors.JaxRuntimeError as error:
            return None, f"uncut it does not compile: {_first_line(error)}"

    def _at_once(
        self, cut: calls.Program, uncut: calls.Program, args: Sequence[Any]
    ) -> tuple[calls.FirstResult, Tally | None]:
        """Hold both sets of results, and arguments to run on once more if they differ."""
        donated = self.facts.donated
        try:
            results, spare = cut(cut.spared(args, donated)), cut.spared(args, donated)
        except jax.errors.JaxRuntimeError as error:
            return self._after(error, cut, args), None
        try:
            expected = uncut(args)
        except jax.errors.JaxRuntimeError as error:
            return self._after(error, cut, args, results), None
        tally = Tally(self.facts, expected, self._merged("outputs", compared(expected, results)))
        if not tally.beyond:
            return calls.FirstResult(results, cut), tally
        del results
        again = compared(expected, uncut(nudged(spare, self.facts.unit_of)))
        tally.sway = self._merged("sway", again)
        return calls.FirstResult(expected, cut), tally

    def _in_turn(
        self, cut: calls.Program, uncut: calls.Program, args: Sequence[Any]
    ) -> tuple[calls.FirstResult, Tally | None]:
        """Hold one set of results, and projections of the others."""
        donated = self.facts.donated
        try:
            ours = sketches(cut(cut.spared(args, donated)))
            moved = sketches(uncut(nudged(cut.spared(args, donated), self.facts.unit_of)))
        except jax.errors.JaxRuntimeError as error:
            return self._after(error, cut, args), None
        expected = uncut(args)
        tally = Tally(self.facts, expected, self._merged("outputs", compared(expected, ours)))
        tally.sway = self._merged("sway", compared(expected, moved))
        return calls.FirstResult(expected, cut), tally

    def _after(
        self,
        error: Exception,
        cut: calls.Program,
        args: Sequence[Any],
        results: list[Any] | None = None,
    ) -> calls.FirstResult:
        """Go on without an audit that XLA cannot run, unless other processes wait for it."""
        if self.peers is not None:
            raise error
        found = cut.run(*args) if results is None else results
        return self._unaudited(cut, found, _first_line(error))

    def _unaudited(self, cut: calls.Program, results: list[Any], reason: str) -> calls.FirstResult:
        self._note(f"not audited: {reason}")
        return calls.FirstResult(results, cut)

    # ------------------------------------------------------------------ telling

    def _note(self, said: str) -> None:
        """Say what came of the audit, where it was said to be due."""
        self.tell(said, None)

    def _gathered[T](self, what: str, mine: T, kind: Any) -> Sequence[T]:
        """Return what every process found."""
        if self.peers is None:
            return (mine,)
        topic, data = f"audit/{self.salt}/{what}", msgspec.msgpack.encode(mine)
        said = self.peers.gather(topic, data)
        return [msgspec.msgpack.decode(theirs, type=kind) for theirs in said]

    def _merged(self, what: str, mine: list[Deviation]) -> list[Deviation]:
        """Return how far every output is off on any process."""
        said = self._gathered(what, mine, list[Deviation])
        return [reduce(or_, leaf) for leaf in zip(*said, strict=True)]

    def _drop(
        self, cut: calls.Program, uncut: calls.Program, step: ir.Module, tally: Tally
    ) -> None:
        """Note that the cut is wrong, write down what is needed to see why, and warn."""
        name = self.facts.name
        _dropped.add(self.salt)
        folder = Evidence(
            name,
            {"step.mlir": step, "cut.mlir": self.cut},
            {"cut.hlo": programs.hlo_of(cut.executable),
             "uncut.hlo": programs.hlo_of(uncut.executable)},
            self.plans, self.options, tally.table(),
        ).write()  # fmt: skip
        error = AuditError(
            name, f"cut it gives other numbers than uncut: {tally}",
            f"send in {folder}; what was returned is right, and the step stays uncut",
        )  # fmt: skip
        self.tell(f"audited at the first call and left whole: {error}", error)
        warnings.warn(str(error), AuditWarning, skip_file_prefixes=_INSIDE)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
