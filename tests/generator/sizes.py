"""How large a step is, and the devices that it is spread over."""

from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from tests.generator.tables import Table


@dataclass(frozen=True)
class Size:
    """Numbers of one step.

    Attributes:
        batch, seq: of the tokens of one device.
        local: experts of one device.
        slots: rows of an expert for every device.
        choices: experts of a token.
        model, hidden: widths.
        layers: how many.
    """

    batch: int = 4
    seq: int = 4
    local: int = 2
    slots: int = 2
    choices: int = 1
    model: int = 8
    hidden: int = 12
    layers: int = 1

    @property
    def tokens(self) -> int:
        return self.batch * self.seq


SIZES = Table(
    {
        "small": Size(),
        "wide": Size(slots=4, model=16),
        "long": Size(batch=8, seq=8, slots=6),
        "roomy": Size(slots=16),
        "uneven": Size(batch=2, seq=8, slots=4, local=3),
        "square": Size(local=4),
        "one_local": Size(local=1, slots=4),
        "as_many": Size(local=8, slots=2, hidden=8),
    },
    {
        "odd_batch": Size(batch=6, seq=3, slots=5),
        "one_slot": Size(slots=1),
        "many": Size(batch=16, seq=16, local=1, slots=48),
    },
)


@dataclass(frozen=True)
class Spread:
    """Axes of a mesh.

    Attributes:
        shape: sizes by name.
        experts: axes that the experts are spread over, in the order of their exchange.
        order: how the devices stand: as they come, turned, or mixed.
    """

    shape: tuple[tuple[str, int], ...]
    experts: tuple[str, ...] = ("ep",)
    order: str = "plain"

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.shape)

    @property
    def others(self) -> tuple[str, ...]:
        return tuple(a for a in self.axes if a not in self.experts)

    @property
    def peers(self) -> int:
        return int(np.prod([n for name, n in self.shape if name in self.experts]))

    @property
    def devices(self) -> int:
        return int(np.prod([n for _, n in self.shape]))

    def mesh(self) -> Mesh:
        devices = np.array(jax.devices()[: self.devices])
        sizes = tuple(n for _, n in self.shape)
        if self.order == "turned":
            return Mesh(devices.reshape(sizes[::-1]).T, self.axes)
        if self.order == "mixed":
            devices = devices[np.random.default_rng(7).permutation(self.devices)]
        return Mesh(devices.reshape(sizes), self.axes)


AB = ("a", "b")
MESHES = Table({
    "ep4": Spread((("ep", 4),)),
    "ep8": Spread((("ep", 8),)),
    "ab22": Spread((("a", 2), ("b", 2)), AB),
    "ab24": Spread((("a", 2), ("b", 4)), AB),
    "data2_ep4": Spread((("data", 2), ("ep", 4))),
    "ep2_data4": Spread((("ep", 2), ("data", 4))),
    "ep4_turned": Spread((("ep", 4), ("data", 2)), order="turned"),
    "ep4_mixed": Spread((("ep", 4),), order="mixed"),
}, {
    "ba42": Spread((("a", 4), ("b", 2)), ("b", "a")),
    "ab_mixed": Spread((("a", 2), ("b", 2)), AB, order="mixed"),
    "one_more_axis": Spread((("none", 1), ("ep", 4))),
})  # fmt: skip
TWO_AXES = ("ab22", "ab24", "ba42", "ab_mixed")
