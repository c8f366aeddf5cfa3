"""Puts the dims of a tensor in another order, by name."""

from collections.abc import Mapping, Sequence

from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo import build
from hlo_passes.ir.stablehlo.read import shape_of


def arrange[Name](
    value: ir.Value, names: Sequence[Name | None], order: Sequence[Name], sizes: Mapping[Name, int]
) -> ir.Value:
    """Return a tensor with the dims that are asked for.

    Args:
        value: the tensor.
        names: of its dims. Those that are not asked for are of size 1.
        order: names of the dims of the result; what the tensor lacks is repeated along.
        sizes: of the dims.
    """
    kept = [d for d, name in enumerate(names) if name in order]
    value = build.reshape(value, [shape_of(value)[d] for d in kept])
    found = [names[d] for d in kept]
    present = [name for name in order if name in found]
    value = build.transpose(value, [found.index(name) for name in present])
    if len(present) == len(order):
        return value
    kind = build.type_like(value.type, [sizes[name] for name in order])
    return build.broadcast(value, kind, [order.index(name) for name in present])
