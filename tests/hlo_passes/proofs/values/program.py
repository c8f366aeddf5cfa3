"""A program that is written op by op, run once for several inputs, and returns every value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import jax
import numpy as np
from jax.extend import backend
from jaxlib import _jax, xla_client
from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.module import Module
from tests.hlo_passes.proofs.values.numbers import Kind, draw_numbers, literal

type Draw = Callable[[np.random.Generator, Kind], np.ndarray]


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the program that is being written."""

    name: str
    kind: Kind

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dims."""
        return self.kind.shape


@dataclass
class Writer:
    """Writes one function. Pieces of it that have nothing to do with each other save compiles.

    Attributes:
        rng: what everything is drawn from.
        pool: values of the piece that is being written.
        lines: what is analysed.
        run: what is run instead; it differs where XLA:CPU lacks an op.
        prefix: of the names of its values.
    """

    rng: np.random.Generator
    prefix: str = ""
    pool: list[Value] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    run: list[str] = field(default_factory=list)
    inputs: list[tuple[Value, Draw]] = field(default_factory=list)
    made: list[Value] = field(default_factory=list)

    def op(self, text: str, *kinds: Kind, run: Sequence[str] = ()) -> list[Value]:
        """Write an op; `{}` in the text stands for the names of its results, each with a %."""
        start = len(self.made)
        values = [Value(f"%{self.prefix}v{start + i}", kind) for i, kind in enumerate(kinds)]
        self.made += values
        self.pool += values
        names = [value.name for value in values]
        self.lines.append(f"{', '.join(names)} = {text}")
        self.run += [line.format(*names) for line in run] or [self.lines[-1]]
        return values

    def one(self, text: str, kind: Kind) -> Value:
        """Write an op with one result."""
        return self.op(text, kind)[0]

    def input(self, kind: Kind, draw: Draw = draw_numbers) -> Value:
        """Take an argument."""
        value = Value(f"%{self.prefix}in{len(self.inputs)}", kind)
        self.inputs.append((value, draw))
        self.pool.append(value)
        return value

    def constant(self, numbers: np.ndarray | float, kind: Kind) -> Value:
        """Write a constant."""
        with np.errstate(all="ignore"):
            held = np.broadcast_to(np.asarray(numbers), kind.shape).astype(kind.dtype)
        return self.one(f"stablehlo.constant {literal(held, kind)}", kind)

    def unary(self, name: str, x: Value, kind: Kind | None = None) -> Value:
        """Write an op of one operand: `convert`, `chlo.erf`, `reshape`, ..."""
        name = name if "." in name else f"stablehlo.{name}"
        return self.one(f"{name} {x.name} : ({x.kind}) -> {kind or x.kind}", kind or x.kind)

    def binary(self, name: str, x: Value, y: Value) -> Value:
        """Write an op of two operands of one type."""
        return self.one(f"stablehlo.{name} {x.name}, {y.name} : {x.kind}", x.kind)

    def broadcast(self, x: Value, shape: tuple[int, ...], dims: Sequence[int]) -> Value:
        """Write a broadcast."""
        kind = x.kind.shaped(*shape)
        return self.one(
            f"stablehlo.broadcast_in_dim {x.name}, dims = {list(dims)} : ({x.kind}) -> {kind}", kind
        )

    def transpose(self, x: Value, order: Sequence[int]) -> Value:
        """Write a transpose."""
        kind = x.kind.shaped(*(x.shape[d] for d in order))
        text = f"stablehlo.transpose {x.name}, dims = {list(map(int, order))}"
        return self.one(f"{text} : ({x.kind}) -> {kind}", kind)

    def iota(self, kind: Kind, dim: int) -> Value:
        """Write the numbers of places along a dim."""
        return self.one(f"stablehlo.iota dim = {dim} : {kind}", kind)

    def compare(self, how: str, x: Value, y: Value, total: bool = False) -> Value:
        """Write a comparison."""
        kind, tail = x.kind.of("i1"), ", TOTALORDER" if total else ""
        return self.one(
            f"stablehlo.compare {how}, {x.name}, {y.name}{tail} : ({x.kind}, {y.kind}) -> {kind}",
            kind,
        )

    def select(self, mask: Value, yes: Value, no: Value) -> Value:
        """Write a selection."""
        return self.one(
            f"stablehlo.select {mask.name}, {yes.name}, {no.name} : {mask.kind}, {yes.kind}",
            yes.kind,
        )

    def reduce(self, x: Value, start: Value, merge: str, dims: Sequence[int]) -> Value:
        """Write a reduction by one op."""
        kind = x.kind.shaped(*(size for d, size in enumerate(x.shape) if d not in dims))
        return self.one(
            f"stablehlo.reduce({x.name} init: {start.name}) applies stablehlo.{merge} across "
            f"dimensions = {list(map(int, dims))} : ({x.kind}, {start.kind}) -> {kind}",
            kind,
        )

    def take(self, other: "Writer") -> None:
        """Write down what another one has, whose values have other names."""
        self.lines += other.lines
        self.run += other.run
        self.inputs += other.inputs
        self.made += other.made

    def executed(self, runs: int = 3, returns: Sequence[Value] | None = None) -> "Executed":
        """Run the program on several inputs.

        Args:
            runs: how often.
            returns: what comes out; every value by default.
        """
        returns = self.made if returns is None else returns
        arguments = [[draw(self.rng, v.kind) for v, draw in self.inputs] for _ in range(runs)]
        return Executed(self, tuple(returns), arguments)

    def text(self, lines: Sequence[str], returns: Sequence[Value]) -> str:
        """Return the function as text."""
        taken = ", ".join(f"{value.name}: {value.kind}" for value, _ in self.inputs)
        kinds = ", ".join(str(value.kind) for value in returns)
        body = "\n  ".join(lines)
        names = ", ".join(value.name for value in returns)
        return (f"func.func public @main({taken}) -> ({kinds}) {{\n  {body}\n"
                f"  return {names} : {kinds}\n}}")  # fmt: skip


@dataclass
class Executed:
    """A program and what came out of it.

    Attributes:
        writer: the program.
        returns: its results.
        arguments: per run the inputs.
    """

    writer: Writer
    returns: tuple[Value, ...]
    arguments: list[list[np.ndarray]]

    @cached_property
    def module(self) -> Module:
        """What is analysed."""
        return Module.parse(self.writer.text(self.writer.lines, self.returns))

    @cached_property
    def body(self) -> Body:
        """Its block."""
        return Body(self.module.body)

    @cached_property
    def values(self) -> dict[str, ir.Value]:
        """Values of the block by their names in the program."""
        made = [value for op in self.body.ops[:-1] for value in op.results]
        names = [value.name for value in self.writer.made]
        taken = [value.name for value, _ in self.writer.inputs]
        return dict(zip([*taken, *names], [*self.body.block.arguments, *made], strict=True))

    @cached_property
    def runs(self) -> list[dict[ir.Value, np.ndarray]]:
        """Per run, what values held."""
        return [self.run(arguments) for arguments in self.arguments]

    @cached_property
    def _compiled(self):
        client = backend.get_backend()
        options = xla_client.CompileOptions()
        # XLA's own passes run as ever: programs run a few times, and LLVM would take most time.
        options.executable_build_options.debug_options.xla_backend_optimization_level = 0
        text = self.writer.text(self.writer.run, self.returns).encode()
        devices = _jax.DeviceList(tuple(client.devices()[:1]))
        return client.compile_and_load(text, devices, options)

    def run(self, arguments: Sequence[np.ndarray]) -> dict[ir.Value, np.ndarray]:
        """Run the program; return what values held, as far as they come out."""
        with jax.enable_x64(True):
            shards = self._compiled.execute_sharded([jax.device_put(x) for x in arguments])
            came = [np.asarray(row[0]) for row in shards.disassemble_into_single_device_arrays()]
        found = dict(zip((v.name for v, _ in self.writer.inputs), arguments, strict=True))
        found |= {value.name: x for value, x in zip(self.returns, came, strict=True)}
        return {self.values[name]: numbers for name, numbers in found.items()}

    def behind(self, value: ir.Value) -> list[int]:
        """Return the places of the ops that a value is made by, directly or not, ascending."""
        places, todo = set(), [value]
        while todo:
            place = self.body.maker.get(todo.pop(), -1)
            if place >= 0 and place not in places:
                places.add(place)
                todo += self.body.reads[place]
        return sorted(places)

    def spell(self, value: ir.Value) -> str:
        """Return the part of the program that makes a value."""
        return "\n".join(str(self.body.ops[place]) for place in self.behind(value))
