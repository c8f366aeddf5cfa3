"""A plan: what was decided for one module on one target, as data.

Plans are saved, compared, replayed, and hashed on every process of a job before it compiles: the
same module, target and options give the same bytes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from hlo_passes.errors import InputError, PlanError
from hlo_passes.files import read_file, write_atomically

SCHEMA = 2


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One op that was given another place.

    Attributes:
        op: key of the op.
        beside: key of the exchange that it now runs beside; "" if none.
        us: its length.
        reason: why, in words.
    """

    op: str
    beside: str = ""
    us: float = 0.0
    reason: str = ""


class Reorder(msgspec.Struct, frozen=True, kw_only=True, tag="reorder"):
    """A computation that gets another order.

    Attributes:
        by: name of the pass.
        block: name of the computation, as graphs are named.
        order: the op at every place of the new order, as its place in the old one.
    """

    by: str
    block: str
    order: tuple[int, ...]


class Stream(msgspec.Struct, frozen=True, kw_only=True, tag="stream"):
    """Exchanges inside a node that get a stream of their own.

    Attributes:
        by: name of the pass.
        block: name of the block that they are in.
        exchanges: their places.
    """

    by: str
    block: str
    exchanges: tuple[int, ...]


class Pin(msgspec.Struct, frozen=True, kw_only=True, tag="pin"):
    """An exchange and the ops that are to run beside it, to be tied together by barriers.

    Attributes:
        by: name of the pass.
        exchange: place of the exchange in program order.
        sinks: places of the ops whose results whoever waits for the exchange has to wait for too.
        starts: places of the ops that must not begin before the exchange can.
    """

    by: str
    exchange: int
    sinks: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()


class Split(msgspec.Struct, frozen=True, kw_only=True, tag="split"):
    """A stretch of a block that is cut into parts.

    Attributes:
        by: name of the pass.
        block: name of the block, as graphs are named (`main`, `main/while.3/1`).
        first, last: places of its first and last op in that block, both included; as the block is
            once what is `indexed` is done.
        k: number of parts.
        along: `tokens` (rows are sent as they come), `capacity` (buffers are cut), or `trips` (so
            many trips of the loop whose body it is are run as one).
        seeds: for `capacity`, what is cut: (place of an exchange, dim of its operand, outer
            blocks of that dim).
        only: places of the ops that are cut, where not all between `first` and `last` are.
        ragged: whether only filled rows are sent.
        indexed: places of all-to-alls in the block beside which products with one-hot masks are
            first replaced by rows that are written and read by index.
    """

    by: str
    block: str
    first: int
    last: int
    k: int
    along: Literal["tokens", "capacity", "trips"] = "tokens"
    seeds: tuple[tuple[int, int, int], ...] = ()
    only: tuple[int, ...] = ()
    ragged: bool = False
    indexed: tuple[int, ...] = ()


type Edit = Reorder | Split | Pin | Stream
"""One change of a program."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was left as it was.

    Attributes:
        op: key of the op or name of the computation.
        reason: why, and what would lift it.
        source: `file:line` of the user's code, or "".
    """

    op: str
    reason: str
    source: str = ""


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What the planner's own simulation says of one order, in us and bytes."""

    step_us: float
    compute_us: float
    exchange_us: float
    exposed_us: float
    exposed_all_to_all_us: float
    peak_bytes: int


def reorders(by: str, orders: Mapping[str, Sequence[int]]) -> tuple[Reorder, ...]:
    """Return new orders as edits, sorted by computation.

    Args:
        by: name of the pass.
        orders: by computation.
    """
    return tuple(Reorder(by=by, block=b, order=tuple(orders[b])) for b in sorted(orders))


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a pass decided.

    Attributes:
        schema: version of this format.
        module: fingerprint of the module that it was made for.
        target: what it was priced for (`h100:1x8`).
        passes: the passes that made it, with their options, in order.
        strategy: which of the competing schedules won (`stock` if none was better).
        edits: what is to be changed, each by which pass.
        race: what other pipelines were predicted to give, by name.
        because: why what was chosen was, where that is not that it was predicted to be shortest.
        moves: the ops that moved beside an exchange, with reasons.
        refusals: what was left alone, with reasons.
        before, after: predictions for the old and the new order.
        bound_us: communication that stays exposed whatever the order.
    """

    schema: int = SCHEMA
    module: str
    target: str
    passes: tuple[str, ...] = ()
    strategy: str = "stock"
    edits: tuple[Edit, ...] = ()
    race: dict[str, Prediction] = {}
    because: str = ""
    moves: tuple[Move, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    before: Prediction | None = None
    after: Prediction | None = None
    bound_us: float = 0.0

    @property
    def changes(self) -> bool:
        """Whether anything is to be changed."""
        return bool(self.edits)

    @property
    def orders(self) -> dict[str, tuple[int, ...]]:
        """New orders by computation; one that keeps its order is absent."""
        return {edit.block: edit.order for edit in self.edits if isinstance(edit, Reorder)}

    @property
    def splits(self) -> tuple[Split, ...]:
        """What is cut into parts."""
        return tuple(edit for edit in self.edits if isinstance(edit, Split))

    @property
    def pins(self) -> tuple[Pin, ...]:
        """What barriers tie, where the order is not enforced after XLA's scheduler."""
        return tuple(edit for edit in self.edits if isinstance(edit, Pin))

    @property
    def streams(self) -> dict[str, tuple[int, ...]]:
        """By block, the exchanges inside a node that get a stream of their own."""
        return {edit.block: edit.exchanges for edit in self.edits if isinstance(edit, Stream)}

    def to_json(self) -> bytes:
        """Return the plan as JSON with sorted keys: equal plans have equal bytes."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=1)

    @property
    def hash(self) -> str:
        """Return 16 hex digits over the plan's bytes."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:16]

    @staticmethod
    def from_json(data: bytes, where: str = "<plan>") -> "Plan":
        """Read a plan.

        Raises:
            InputError: if `data` is no plan of this schema.
        """
        try:
            plan = msgspec.json.decode(data, type=Plan)
        except msgspec.MsgspecError as error:
            raise InputError(
                where, f"not a plan: {error}", "write it with `lancet-jax plan`"
            ) from None
        if plan.schema != SCHEMA:
            raise InputError(where, f"plan schema {plan.schema}, this version reads {SCHEMA}",
                             "make the plan again")  # fmt: skip
        return plan

    def save(self, path: str | Path) -> None:
        """Write the plan to `path`, whole or not at all."""
        write_atomically(Path(path), self.to_json() + b"\n")

    @staticmethod
    def load(path: str | Path) -> "Plan":
        """Read the plan at `path`.

        Raises:
            InputError: if the file cannot be read or holds no plan.
        """
        return Plan.from_json(read_file(path, "name a plan file"), str(path))

    def check(self, fingerprint: str) -> None:
        """Raise unless the plan was made for the module with this fingerprint.

        Raises:
            PlanError: if it was made for another.
        """
        if self.module != fingerprint:
            raise PlanError(
                f"plan {self.hash}",
                f"made for module {self.module}, but this module is {fingerprint}",
                "plan this module again: `lancet-jax plan FILE -o plan.json`",
            )
