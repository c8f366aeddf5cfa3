"""What was decided for one step, as data: sent to other processes, kept for the next start."""

import msgspec

from hlo_passes.plans import Plan


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One program that competed.

    Attributes:
        name: what passes made of the step: `as it is`, `full k=2`; what XLA left out, in brackets.
        predicted_us: its step in us before XLA fused it; 0 if that was not asked.
        step_us, exposed_us: its step, and exchanges with no compute beside them, in us, on what XLA
            made of it; 0 if XLA made nothing.
        stock_us: its step in XLA's own order, in us.
        peak_bytes: temporaries of one device, estimated, of what XLA made of it.
        fits: whether that fits into memory.
        why: why it does not run; "" for the one that does.
    """

    name: str
    predicted_us: float = 0.0
    step_us: float = 0.0
    exposed_us: float = 0.0
    stock_us: float = 0.0
    peak_bytes: int = 0
    fits: bool = True
    why: str = ""


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """Which program a step is compiled to.

    Attributes:
        name: the program's, as in `race`.
        plans: of all passes before XLA.
        options: XLA options that it needs besides the usual.
        left_out: what XLA does not do with these, for readers.
        orders: of all passes behind the scheduler; none where they have yet to be made.
        race: all that competed, shortest first; none if nothing did.
        prices: name and fingerprint of the costs.
        error: why nothing could be decided.
    """

    name: str = ""
    plans: tuple[Plan, ...] = ()
    options: dict[str, str | bool | int] = {}
    left_out: str = ""
    orders: tuple[Plan, ...] = ()
    race: tuple[Entry, ...] = ()
    prices: str = ""
    error: str = ""

    def to_bytes(self) -> bytes:
        """Return it as JSON: equal decisions have equal bytes."""
        return msgspec.json.encode(self, order="deterministic")

    @staticmethod
    def from_bytes(data: bytes) -> "Decided":
        """Read what `to_bytes` wrote.

        Raises:
            msgspec.MsgspecError: if it is none.
        """
        return msgspec.json.decode(data, type=Decided)
