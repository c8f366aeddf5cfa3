"""Graphs made by hand, op by op."""

from hlo_passes.ir.graph import Graph, Op, Value
from hlo_passes.ir.types import TensorType
from hlo_passes.ir.work import pointwise_flops, traffic


class GraphBuilder:
    """Collects ops in program order; values are named by their ids."""

    def __init__(self, name="main"):
        self.name, self.ops, self.values = name, [], []

    def argument(self, *shape, dtype="f32"):
        """Add an argument and return its value id."""
        return self._value(-1, shape, dtype)

    def op(self, kind, operands, shape, dtype="f32", **fields):
        """Add an op of one result, with the traffic and flops of an op that runs alone."""
        read = tuple(t for v in operands for t in self.values[v].leaves)
        made = (TensorType(tuple(shape), dtype),)
        given = {
            "bytes": traffic(kind, read, made),
            "flops": pointwise_flops(kind, read, made),
            "dtype": dtype,
        }
        result = self._value(len(self.ops), shape, dtype)
        key = f"{self.name}/{kind}#{len(self.ops)}"
        self.ops.append(
            Op(
                id=len(self.ops), kind=kind, name=f"%{len(self.ops)}", key=key,
                operands=tuple(operands), results=(result,), **(given | fields),
            )
        )  # fmt: skip
        return result

    def build(self, *returns, **fields):
        """Return the graph that hands out `returns`."""
        return Graph(self.name, tuple(self.ops), tuple(self.values), tuple(returns), **fields)

    def _value(self, op, shape, dtype):
        self.values.append(Value(len(self.values), op, (TensorType(tuple(shape), dtype),)))
        return len(self.values) - 1
