"""Makes sure that all processes of a job compile the same program, or that none goes on.

A step runs on many processes only if their exchanges come in the same order. So the processes that
share a program tell each other what they are about to compile, over the key-value store that
`jax.distributed` keeps. The first of them compares and gives a verdict that all obey: they go on,
or raise the same error. Programs are known by name and signature, not by counting compiles, so one
process may compile a step before the others do, or once more than they.

Nothing here waits inside XLA: a process that finds its executable in JAX's persistent cache never
gets there, and others must not wait for it.
"""

import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec
from jaxlib.mlir import ir

from hlo_passes.ir.collectives import KINDS
from hlo_passes.ir.hlo.text import read_hlo
from hlo_passes.ir.opaque import OpaqueExchange
from lancet_jax.errors import PeerError, UnsupportedError
from lancet_jax.peers.decided import Decided
from lancet_jax.peers.job_store import JobStore, job_store
from lancet_jax.seams import backends
from lancet_jax.seams.step_module import name_of

type Facts = Mapping[str, str]
"""What a process has decided, by name, causes before effects. "" where it does not know; that
agrees with everything. `why` is told where others differ, and never compared.
"""

_WHY = "why"

_REMEDY = (
    "give every process the same code, options, versions and devices; plan_on='first' plans on "
    "the first process for all"
)
_ABSENT = (
    "see what it printed, whether it still runs, and that LANCET_JAX_DISABLE is the same for all; "
    "peer_timeout_s allows more time"
)


@dataclass(frozen=True)
class Peers:
    """The processes that share one program.

    Attributes:
        store: what they write to and read from.
        members: their ranks, ascending; the first one judges.
        program: the program's name, for messages.
        place: where in the store they meet.
        timeout_s: seconds that the first one waits for the others; they wait twice as long for it.
    """

    store: JobStore
    members: tuple[int, ...]
    program: str
    place: str
    timeout_s: float

    @staticmethod
    def of(module: ir.Module, devices: Sequence[Any], timeout_s: float) -> "Peers | None":
        """Return who compiles `module` for `devices`; None if this process is alone.

        Compile-only devices belong to nobody.

        Args:
            module: the step.
            devices: that it is to run on.
            timeout_s: how long to wait for the others.
        """
        members = tuple(sorted({device.process_index for device in devices}))
        store = job_store()
        if store is None or len(members) < 2 or backends.is_compile_only(devices[0]):
            return None
        name = name_of(module)
        signature = f"{len(devices)} {members} {_signature(module)}"
        place = f"lancet_jax/{name}/{_digest(signature.encode())}"
        return Peers(store, members, name, place, timeout_s)

    @property
    def is_first(self) -> bool:
        """Whether this process judges, and plans for all where one does."""
        return self.store.rank == self.members[0]

    def agree(self, what: str, facts: Facts) -> None:
        """Return once all members have the same facts.

        What was agreed on once is not asked again.

        Args:
            what: what the facts are about, for keys.
            facts: see `Facts`.

        Raises:
            PeerError: if two members differ, naming both, or one does not come in time.
        """
        mine = msgspec.json.encode(dict(facts))
        where = f"{self.place}/{what}"
        agreed = self.store.agreed.setdefault(where, [])
        if mine in agreed:
            return
        key = f"{where}/{len(agreed)}"
        self.store.set(f"{key}/{self.store.rank}", mine)
        if self.is_first:
            verdict = self._judge(key, facts)
            self.store.set(f"{key}/verdict", msgspec.json.encode(verdict))
        else:
            heard = self.receive(f"{what}/{len(agreed)}/verdict", 2 * self.timeout_s)
            verdict = msgspec.json.decode(heard, type=tuple[str, str, str] | None)
        agreed.append(mine if verdict is None else b"")
        if verdict is not None:
            raise PeerError(*verdict)

    def gather_once(self, what: str, mine: bytes) -> tuple[bytes, ...]:
        """Return what every member had to say when it was asked for the first time.

        So a process may compile a program once more than the others.

        Args:
            what: what it is about, for keys.
            mine: what this process has to say.

        Raises:
            PeerError: if one does not come in time.
        """
        where = f"{self.place}/{what}"
        if where not in self.store.gathered:
            self.store.gathered[where] = self.gather(what, mine)
        return self.store.gathered[where]

    def gather(self, what: str, mine: bytes) -> tuple[bytes, ...]:
        """Return what every member has to say, in the order of their ranks.

        Unlike what is agreed on, this is asked anew every time.

        Raises:
            PeerError: if one does not come in time.
        """
        met = self.store.agreed.setdefault(f"{self.place}/{what}", [])
        topic = f"{what}/{len(met)}"
        met.append(b"")
        key = f"{self.place}/{topic}"
        self.store.set(f"{key}/{self.store.rank}", mine)
        if not self.is_first:
            heard = self.receive(f"{topic}/all", 2 * self.timeout_s)
            said = msgspec.json.decode(heard, type=_Gathered)
        else:
            said = self._gathered(key)
            self.send(f"{topic}/all", msgspec.json.encode(said))
        if said.error is not None:
            raise PeerError(*said.error)
        return said.all

    def _gathered(self, key: str) -> "_Gathered":
        """Wait for what every member has written below a key."""
        deadline, said = time.monotonic() + self.timeout_s, []
        for peer in self.members:
            data = self.store.get(f"{key}/{peer}", deadline - time.monotonic())
            if data is None:
                return _Gathered((), self._absence(peer, self.timeout_s))
            said.append(data)
        return _Gathered(tuple(said))

    def send(self, what: str, data: bytes) -> None:
        """Write something for the other members."""
        self.store.set(f"{self.place}/{what}", data)

    def receive(self, what: str, seconds: float) -> bytes:
        """Return what the first member writes under a key.

        Raises:
            PeerError: if it writes nothing for that long.
        """
        data = self.store.get(f"{self.place}/{what}", seconds)
        if data is None:
            raise PeerError(*self._absence(self.members[0], seconds))
        return data

    def _judge(self, key: str, mine: Facts) -> tuple[str, str, str] | None:
        """Compare everybody's facts to this process's; return what an error says, or None."""
        deadline = time.monotonic() + self.timeout_s
        ours = {name: value for name, value in mine.items() if name != _WHY}
        for peer in self.members[1:]:
            data = self.store.get(f"{key}/{peer}", deadline - time.monotonic())
            if data is None:
                return self._absence(peer, self.timeout_s)
            theirs = msgspec.json.decode(data, type=dict[str, str])
            if differing := _differing(ours, theirs):
                return self._difference(peer, mine, theirs, differing)
        return None

    def _absence(self, peer: int, seconds: float) -> tuple[str, str, str]:
        what = f"process {peer} did not come to compile it in {seconds:g} s"
        return self.program, what, _ABSENT

    def _difference(
        self, peer: int, mine: Facts, theirs: Facts, differing: Sequence[str]
    ) -> tuple[str, str, str]:
        first = self.members[0]
        details = "; ".join(
            f"{name}: {mine.get(name, '')!r} on process {first}, {theirs.get(name, '')!r} on "
            f"process {peer}"
            for name in (*differing, *((_WHY,) if mine.get(_WHY) or theirs.get(_WHY) else ()))
        )
        what = (
            f"process {first} has {_digest(msgspec.json.encode(dict(mine)))}, process {peer} has "
            f"{_digest(msgspec.json.encode(dict(theirs)))}: they would run different programs "
            f"and could wait for each other for ever ({details})"
        )
        return self.program, what, _REMEDY


class _Gathered(msgspec.Struct, frozen=True):
    """What all members said, or what the error says if one did not come."""

    all: tuple[bytes, ...]
    error: tuple[str, str, str] | None = None


@dataclass(frozen=True)
class SharedPlans:
    """Plans that the first process makes for all.

    Attributes:
        peers: who shares a program; None for nobody.
        is_used: whether the first process plans for all; else nothing is sent.
    """

    peers: Peers | None
    is_used: bool

    def made(self, what: str) -> Decided | None:
        """Return what the first process decided; None where this process has to plan by itself.

        Raises:
            PeerError: if it leaves nothing in time.
            UnsupportedError: if it could not plan.
        """
        if not self.is_used or self.peers is None or self.peers.is_first:
            return None
        data = self.peers.receive(what, 2 * self.peers.timeout_s)
        decision = msgspec.json.decode(zlib.decompress(data), type=Decided)
        if decision.error:
            raise UnsupportedError(f"process {self.peers.members[0]}", decision.error,
                                   "mend it there")  # fmt: skip
        return decision

    def leave(self, what: str, decision: Decided) -> None:
        """Leave a decision for the others, if this process is the first."""
        if self.is_used and self.peers is not None and self.peers.is_first:
            self.peers.send(what, zlib.compress(msgspec.json.encode(decision)))


def exchange_order(text: str, opaque: Sequence[OpaqueExchange] = ()) -> str:
    """Return 16 hex digits over the exchanges of HLO text, in order, in every computation.

    Args:
        text: of the module.
        opaque: custom calls that are exchanges as well.
    """
    targets = tuple(f'custom_call_target="{name}"' for o in opaque for name in (o.target, o.done))
    kinds = tuple(kind.replace("_", "-") for kind in KINDS)
    names = [
        f"{name} {instruction.name}"
        for name, computation in read_hlo(text).computations.items()
        for instruction in computation.instructions
        if instruction.opcode.startswith((*kinds, "async-"))
        or (opaque and any(target in instruction.attributes for target in targets))
    ]
    return _digest("\n".join(names).encode())


def _differing(mine: Facts, theirs: Facts) -> list[str]:
    """Return the names of facts that both know and that differ."""
    pairs = ((name, a, theirs.get(name, "")) for name, a in mine.items())
    return [name for name, a, b in pairs if a and b and a != b]


def _signature(module: ir.Module) -> str:
    """Return the type of a module's main function."""
    for op in module.body.operations:
        attributes = op.operation.attributes
        if op.operation.name == "func.func" and str(attributes["sym_name"]) == '"main"':
            return str(attributes["function_type"])
    return ""


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()[:16]
