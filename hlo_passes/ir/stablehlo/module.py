"""An MLIR module that belongs to us, so that editing it touches nobody else's.

jit keeps the module that it lowered in a cache; editing that one changes what the user's own
`jax.jit` computes later. A `Module` is therefore always a copy.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256

from jax.extend.mlir.dialects import chlo, sdy, stablehlo
from jaxlib.mlir import ir
from jaxlib.mlir._mlir_libs import _jax_mlir_ext
from jaxlib.mlir.dialects import mhlo

from hlo_passes.errors import InputError, PlanError, VerifyError
from hlo_passes.ir.graph import Graph
from hlo_passes.ir.opaque import OpaqueExchange, recognised
from hlo_passes.ir.stablehlo.edit import inline_calls, reorder_block
from hlo_passes.ir.stablehlo.exchanges import exchange_kind
from hlo_passes.ir.stablehlo.read import tensor_type
from hlo_passes.ir.stablehlo.to_graph import graph_of

_PORTABLE = b"StableHLO_v"
_BYTECODE = b"ML\xefR"
_DONATED = ("tf.aliasing_output", "jax.buffer_donor")
_REGIONS = ("sdy.manual_computation", "sdy.named_computation")


def make_context() -> ir.Context:
    """Return a context that knows every dialect that JAX lowers to."""
    context = ir.Context()
    registry = ir.DialectRegistry()
    _jax_mlir_ext.register_dialects(registry)
    context.append_dialect_registry(registry)
    for dialect in (stablehlo, chlo, sdy):
        dialect.register_dialect(context)
    mhlo.register_mhlo_dialect(context)
    context.load_all_available_dialects()
    return context


@dataclass(frozen=True, eq=False)
class Module:
    """A copy of a StableHLO module, calls inlined.

    Attributes:
        ir: the module. Only passes edit it, and only in `apply`.
        path: where it came from, for messages.
        opaque: custom calls in it that are exchanges.
    """

    ir: ir.Module
    path: str = "<module>"
    opaque: tuple[OpaqueExchange, ...] = ()

    @staticmethod
    def copy_of(
        module: ir.Module, path: str = "<module>", opaque: tuple[OpaqueExchange, ...] = ()
    ) -> "Module":
        """Copy a module that belongs to somebody else, in its own context.

        Args:
            module: whose text is copied.
            path: where it came from, for messages.
            opaque: custom calls that the user says are exchanges.
        """
        buffer = io.BytesIO()
        module.operation.write_bytecode(buffer)
        with module.context:
            clone = ir.Module.parse(buffer.getvalue())
        inline_calls(clone)
        return Module(clone, path, opaque)

    @staticmethod
    def parse(data: bytes | str, path: str = "<module>") -> "Module":
        """Read StableHLO text, MLIR bytecode or a portable StableHLO artifact.

        Raises:
            InputError: if `data` is none of them, or not legal.
        """
        context = make_context()
        raw = data.encode() if isinstance(data, str) else data
        try:
            if raw.startswith(_BYTECODE) and _PORTABLE in raw[:64]:
                module = stablehlo.deserialize_portable_artifact(context, raw)
            else:
                with context:
                    module = ir.Module.parse(data)
            with context:
                module.operation.verify()
        except Exception as error:
            place, reason = _first_complaint(error, path)
            raise InputError(place, reason, "pass StableHLO as jax lowers it, whole") from None
        inline_calls(module)
        return Module(module, path)

    @property
    def name(self) -> str:
        """The module's name, `jit_step` for a jitted `step`."""
        attributes = self.ir.operation.attributes
        return ir.StringAttr(attributes["sym_name"]).value if "sym_name" in attributes else "module"

    def text(self, *, locations: bool = False) -> str:
        """Return the module as text, with source locations if asked for."""
        return self.ir.operation.get_asm(enable_debug_info=locations)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over the module without locations, and over what is known of it."""
        known = "".join(map(repr, self.opaque))
        return sha256((self.text() + known).encode()).hexdigest()[:16]

    @property
    def devices(self) -> int:
        """Number of devices that the module is for."""
        attributes = self.ir.operation.attributes
        counts = [
            ir.IntegerAttr(attributes[name]).value
            for name in ("mhlo.num_partitions", "mhlo.num_replicas")
            if name in attributes
        ]
        return math.prod(counts)

    @cached_property
    def body(self) -> ir.Block:
        """The block that does the work: of the one manual region if it holds every exchange."""
        block = self.main
        ops = [view.operation for view in block.operations]
        regions = [op for op in ops if op.name in _REGIONS]
        named = frozenset(o.target for o in self.opaque)
        if len(regions) != 1 or any(_talks(op, named) for op in ops if op != regions[0]):
            return block
        return regions[0].regions[0].blocks[0]

    def snapshot(self) -> Graph:
        """Return the graph of the block that does the work."""
        graph = graph_of(self.body, self.ir, self.devices)
        return recognised(replace(graph, donated=self._donated()), self.opaque)

    def verify(self) -> None:
        """Check the module.

        Raises:
            VerifyError: if MLIR's verifier refuses it.
        """
        try:
            with self.ir.context:
                self.ir.operation.verify()
        except Exception as error:
            place, reason = _first_complaint(error, self.path)
            raise VerifyError(place, reason, "report this with the module") from None

    def copy(self) -> "Module":
        """Return an independent copy."""
        return Module.copy_of(self.ir, self.path, self.opaque)

    def reordered(self, orders: Mapping[str, Sequence[int]]) -> "Module":
        """Return a copy whose main block is in another order.

        Args:
            orders: per computation, the op at every new place, as its place in the old order.
                Only `main` is known here; loops keep their order in StableHLO.

        Raises:
            PlanError: if an order names another computation or does not fit.
        """
        clone = self.copy()
        for name, order in orders.items():
            count = len(clone.body.operations)
            if name != "main" or sorted(order) != list(range(count)):
                raise PlanError(name, "the plan's order does not fit this module",
                                "plan this module again")  # fmt: skip
            reorder_block(clone.body, order)
        clone.verify()
        return clone

    @property
    def is_local(self) -> bool:
        """Whether the block that does the work is what one device runs, not yet to be cut up."""
        return self.devices == 1 or self.body != self.main

    def _donated(self) -> int:
        """Return the bytes of the arguments of the block that does the work that are donated."""
        main, body = self.main, self.body
        given = ir.ArrayAttr(main.owner.attributes["arg_attrs"]) if (
            "arg_attrs" in main.owner.attributes
        ) else ()  # fmt: skip
        donated = [
            argument
            for argument, facts in zip(main.arguments, given, strict=False)
            if any(name in ir.DictAttr(facts) for name in _DONATED)
        ]
        if body == main:
            return sum(_bytes(argument) for argument in donated)
        operands = body.owner.operands
        return sum(
            _bytes(inside)
            for inside, outside in zip(body.arguments, operands, strict=False)
            if outside in donated
        )

    @property
    def main(self) -> ir.Block:
        """The block of the module's main function."""
        functions = {
            ir.StringAttr(op.operation.attributes["sym_name"]).value: op
            for op in self.ir.body.operations
            if op.operation.name == "func.func"
        }
        main = functions.get("main") or next(iter(functions.values()), None)
        if main is None or not main.regions[0].blocks:
            raise InputError(self.path, "the module has no function with a body",
                             "pass a whole module")  # fmt: skip
        return main.regions[0].blocks[0]


def _bytes(value: ir.Value) -> int:
    kind = tensor_type(value.type)
    return kind.bytes if kind else 0


def _talks(op: ir.Operation, named: frozenset[str]) -> bool:
    """Whether an exchange is in the op or its regions, custom calls of these names included."""
    found = False

    def is_named(inner: ir.Operation) -> bool:
        if inner.name != "stablehlo.custom_call":
            return False
        return ir.StringAttr(inner.attributes["call_target_name"]).value in named

    def visit(inner: ir.Operation) -> ir.WalkResult:
        nonlocal found
        found = found or bool(exchange_kind(inner)) or is_named(inner)
        return ir.WalkResult.INTERRUPT if found else ir.WalkResult.ADVANCE

    op.walk(visit)
    return found


def _first_complaint(error: Exception, path: str) -> tuple[str, str]:
    """Turn MLIR's message into (place, reason)."""
    lines = str(error).splitlines()
    for line in lines:
        if match := re.search(r'error: (?:"[^"]*":(\d+):(\d+): )?(.*)', line):
            return (f"{path}:{match[1]}:{match[2]}" if match[1] else path), match[3]
    return path, lines[0] if lines else "unreadable"
