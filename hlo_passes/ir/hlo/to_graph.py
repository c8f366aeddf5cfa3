"""Builds a `Graph` from HLO text: what each instruction does, reads, overwrites and waits for."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from hlo_passes.ir.graph import Graph, Op, Value
from hlo_passes.ir.hlo.aliases import buffer_order, donated_bytes
from hlo_passes.ir.hlo.exchanges import HloExchangeReader, integers, send_of
from hlo_passes.ir.hlo.text import Computation, HloText, Instruction
from hlo_passes.ir.hlo.traffic import fusion_traffic, is_library_product, outputs_of
from hlo_passes.ir.hlo.trips import trips_of
from hlo_passes.ir.keys import KeyMaker
from hlo_passes.ir.traits import BY_RANK, EFFECTS, UPDATES
from hlo_passes.ir.types import TensorType
from hlo_passes.ir.work import (
    Work,
    convolution_flops,
    dot_flops,
    grouped_product,
    pointwise_flops,
    traffic,
)

_OP_NAME = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')
_SOL_COST = re.compile(r'"exec_time_us":([\d.eE+\-]+)[^{}]*"name":"sol"')
_ALIASED_OPERANDS = re.compile(r"\{[\d,\s]*\}:\s*\((\d+),")
_LIMIT_US = 1e7
"""XLA prints absurd costs (1.9e10 us) where its estimator does not apply."""
_UNPRICED_US = 0.01
"""What XLA prints beside fusions that it gives to Triton, whatever their size: no price either. On
an H100 those of attention's softmax took 100 us and more (docs/real-gpu.md)."""


def graph_of(module: HloText, devices: int = 0) -> Graph:
    """Build the graph of a module's entry, loops and branches inside it.

    Args:
        module: HLO of any stage, as read.
        devices: how many devices run it, where the caller knows better than the module.

    Returns:
        A graph in printed order, which is the schedule if the module is scheduled.
    """
    return _Builder(module, devices or module.devices).graph(module.entry, module.entry.name)


@dataclass
class _Builder:
    module: HloText
    devices: int

    def __post_init__(self) -> None:
        self.exchanges = HloExchangeReader(self.module)
        self.work = cache(self._work)
        self.is_ranked = cache(self._is_ranked)

    def graph(self, computation: Computation, name: str) -> Graph:
        """Build one computation's graph; values and ops share their ids."""
        ids = {ins.name: i for i, ins in enumerate(computation.instructions)}
        keys = KeyMaker()
        ops = tuple(
            self._op(i, ins, computation, ids, keys, name)
            for i, ins in enumerate(computation.instructions)
        )
        values = tuple(Value(i, i, ins.leaves) for i, ins in enumerate(computation.instructions))
        root = next(
            (i for i, ins in enumerate(computation.instructions) if ins.is_root), len(ops) - 1
        )
        plain = Graph(name, ops, values, (root,), (), self.devices, self.module.is_scheduled)
        header = self.module.header if computation.is_entry else ""
        ordered = [*_control(computation, ids), *_side_effects(ops), *_waits(ops)]
        if self.module.is_scheduled:
            ordered += buffer_order(plain, header)
        return Graph(
            name, ops, values, (root,), tuple(dict.fromkeys(ordered)), self.devices,
            self.module.is_scheduled, donated_bytes(plain, header),
        )  # fmt: skip

    def _op(
        self,
        i: int,
        ins: Instruction,
        computation: Computation,
        ids: dict[str, int],
        keys: KeyMaker,
        where: str,
    ) -> Op:
        kind, half = self.exchanges.kind_of(ins)
        start = self._start_of(ins, half, computation, ids)
        half = "done" if start >= 0 else half
        operands = tuple(ids[o] for o in ins.operands)
        types = tuple(
            t for n, o in enumerate(operands)
            for t in ins.taken(n, computation.instructions[o].leaves)
        )  # fmt: skip
        work = self._instruction_work(ins, kind, types)
        scope = _scope_of(ins)
        runs_others = kind in ("while", "conditional", "call")
        is_priced = not half and not runs_others
        flops, moved = (work.flops, work.bytes) if is_priced else (0.0, 0.0)
        return Op(
            id=i,
            kind=kind,
            name=ins.name,
            key=keys.make(scope, kind.removesuffix("_start")),
            operands=operands,
            results=(i,),
            scope=scope,
            source=self.module.source_of(ins),
            flops=flops,
            bytes=moved,
            matmul=work.matmul and not half,
            dtype=work.dtype,
            xla_us=None if _widens(ins, work) else _xla_cost(ins),
            collective=self.exchanges.of(ins, types) if half != "done" else None,
            start=start,
            blocking=self.exchanges.is_sync(ins),
            side_effect=_has_side_effect(ins),
            overwrites=self._overwrites(ins, kind, operands),
            trips=trips_of(ins, computation, self.module) if kind == "while" else 1,
            inner=self._inner(ins, kind, where) if runs_others else (),
            index=_index(ins, kind),
            target=self.module.target_of(ins),
            by_rank=self._by_rank(ins),
            condition=self._condition(ins, kind, where),
        )

    def _condition(self, ins: Instruction, kind: str, where: str) -> Graph | None:
        """Build the graph that decides whether a loop goes on."""
        return next(iter(self._inner(ins, "condition", where)), None) if kind == "while" else None

    def _start_of(
        self, ins: Instruction, half: str, computation: Computation, ids: dict[str, int]
    ) -> int:
        """Return the op that a done waits for; -1 for other ops, and where it is elsewhere."""
        if ins.opcode == "recv-done":
            send = send_of(ins, computation)
            return ids[send.name] if send else -1
        if half != "done" and not ins.opcode.endswith("-done"):
            return -1
        first = next(iter(ins.operands), "")
        while first and computation.instructions[ids[first]].opcode == "async-update":
            first = computation.instructions[ids[first]].operands[0]
        if not first:
            return -1
        start = ids[first]
        return start if self.exchanges.is_done(ins, computation.instructions[start]) else -1

    def _by_rank(self, ins: Instruction) -> bool:
        """Whether a result depends on which device runs it: its own doing, or a fusion's."""
        fused = ins.called("calls") if ins.opcode == "fusion" else ()
        is_effect = ins.opcode == "custom-call" and _has_side_effect(ins)
        return (
            ins.opcode.replace("-", "_") in BY_RANK or is_effect or any(map(self.is_ranked, fused))
        )

    def _is_ranked(self, name: str) -> bool:
        computation = self.module.computations.get(name)
        return computation is not None and any(map(self._by_rank, computation.instructions))

    def _inner(self, ins: Instruction, kind: str, where: str) -> tuple[Graph, ...]:
        """Build the graphs that an instruction runs: a loop's body, a branch, a call."""
        names = {
            "while": ins.called("body"),
            "condition": ins.called("condition"),
            "call": ins.called("to_apply", "calls"),
            "conditional": ins.called(
                "branch_computations", "true_computation", "false_computation"
            ),
        }[kind]
        known = [self.module.computations[n] for n in names if n in self.module.computations]
        return tuple(self.graph(c, c.name) for c in known)

    def _instruction_work(
        self, ins: Instruction, kind: str, operands: tuple[TensorType, ...]
    ) -> Work:
        """Work of one instruction, what it calls included."""
        if kind.endswith("_done") or kind in ("send", "recv"):
            return Work(0.0, 0.0)  # its start is charged, an exchange by its bytes
        if kind in ("fusion", "fusion_start", "async_start", "call_start"):
            names = ins.called("calls", "to_apply")
            return self.work(names[0]) if names else Work(0.0, 0.0)
        if kind == "copy_start":
            return Work(0.0, 2.0 * operands[0].bytes)
        flops, product = _flops(ins, kind, operands)
        made = ins.leaves[:1] if is_library_product(ins) else ins.leaves  # the rest is scratch
        moved = traffic("dot" if product else kind, operands, made)
        dtype = product or (ins.leaves[0].dtype if ins.leaves else "f32")
        return Work(flops, moved, bool(product), dtype)

    def _work(self, name: str) -> Work:
        """Work of a fused computation: its edges move bytes, its inside computes."""
        computation = self.module.computations.get(name)
        if computation is None:
            return Work(0.0, 0.0)
        table = {ins.name: ins for ins in computation.instructions}
        root = next(i for i in reversed(computation.instructions) if i.is_root)
        total, largest, dtype = 0.0, 0.0, root.leaves[0].dtype if root.leaves else "f32"
        for ins in computation.instructions:
            operands = tuple(
                t for n, o in enumerate(ins.operands) for t in ins.taken(n, table[o].leaves)
            )
            flops, product = self._inner_flops(ins, operands)
            total += flops
            if product and flops > largest:
                largest, dtype = flops, product
        moved = fusion_traffic(computation.instructions, root, table)
        moved += sum(self._added_to(ins, table) for ins in outputs_of(root, table))
        return Work(total, moved, largest > 0.0, dtype)

    def _inner_flops(self, ins: Instruction, operands: tuple[TensorType, ...]) -> tuple[float, str]:
        """Operations of one instruction of a fusion, those of a fusion in it included."""
        names = ins.called("calls", "to_apply") if ins.opcode in ("fusion", "call") else ()
        if not names:
            return _flops(ins, ins.opcode.replace("-", "_"), operands)
        work = self.work(names[0])
        return work.flops, work.dtype if work.matmul else ""

    def _added_to(self, ins: Instruction, table: dict[str, Instruction]) -> float:
        """Bytes that a scatter reads where it writes: none if it puts its updates there as is."""
        if ins.opcode != "scatter":
            return 0.0
        rules = [self.module.computations.get(name) for name in ins.called("to_apply")]
        if any(i.is_root and i.opcode == "parameter" for r in rules if r for i in r.instructions):
            return 0.0
        updates = ins.operands[len(ins.operands) // 2 + 1 :]
        return float(sum(t.bytes for name in updates for t in table[name].leaves))

    def _overwrites(
        self, ins: Instruction, kind: str, operands: tuple[int, ...]
    ) -> tuple[int, ...]:
        """Operands whose buffers the result may take over in place."""
        if aliasing := ins.attribute("output_to_operand_aliasing"):
            taken = {int(n) for n in _ALIASED_OPERANDS.findall(aliasing)}
            return tuple(operands[n] for n in sorted(taken) if n < len(operands))
        if kind in UPDATES or kind in ("while", "sort"):
            return operands[:1]
        if kind.removesuffix("_start") == "ragged_all_to_all":
            # Rows arrive in the memory of the second operand, though XLA does not print that.
            return operands[1:2]
        if kind == "fusion":
            return tuple(operands[n] for n in self._updated_parameters(ins) if n < len(operands))
        return ()

    def _updated_parameters(self, ins: Instruction) -> tuple[int, ...]:
        """Parameters that a fusion updates in place: first operands of updates at its root."""
        names = ins.called("calls")
        computation = self.module.computations.get(names[0]) if names else None
        if computation is None:
            return ()
        table = {i.name: i for i in computation.instructions}
        found = set()
        for update in computation.instructions:
            if update.opcode.replace("-", "_") in UPDATES:
                source = table[update.operands[0]]
                while source.opcode in ("bitcast", "copy", "convert") and source.operands:
                    source = table[source.operands[0]]
                if source.opcode == "parameter":
                    found.add(_index(source, "parameter"))
        return tuple(sorted(found))


def _flops(ins: Instruction, kind: str, operands: tuple[TensorType, ...]) -> tuple[float, str]:
    """Operations of one instruction, and the type of what a matrix product multiplies, else ""."""
    if kind == "dot":
        dims = integers(ins.attribute("lhs_contracting_dims"))
        return dot_flops(operands[0], ins.leaves[0], dims), operands[0].dtype
    if kind == "custom_call" and is_library_product(ins):
        match = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', ins.attributes)
        dims = integers(match[1]) if match else (len(operands[0].shape) - 1,)
        return dot_flops(operands[0], ins.leaves[0], dims), operands[0].dtype
    if kind == "custom_call" and (found := grouped_product(operands, ins.leaves)):
        return found[0], found[1].dtype
    if kind == "convolution":
        labels = ins.attribute("dim_labels").replace("->", "_").split("_")
        flops = convolution_flops(operands[1], ins.leaves[0], labels[1].index("o"))
        return flops, operands[0].dtype
    return pointwise_flops(kind, operands, ins.leaves), ""


def _waits(ops: tuple[Op, ...]) -> Iterable[tuple[int, int]]:
    """Yield what a done waits for without reading it, as a `recv-done` does for the send."""
    for op in ops:
        if op.is_done and op.start not in op.operands:
            yield op.start, op.id


def _control(computation: Computation, ids: dict[str, int]) -> Iterable[tuple[int, int]]:
    """Yield what control dependencies order."""
    for ins in computation.instructions:
        if "control-predecessors" in ins.attributes:
            for before in re.findall(r"[\w.\-]+", ins.attribute("control-predecessors")):
                if before in ids:
                    yield ids[before], ids[ins.name]


def _side_effects(ops: tuple[Op, ...]) -> Iterable[tuple[int, int]]:
    """Yield a chain through every op whose effect the outside sees."""
    effects = [op.id for op in ops if op.side_effect]
    yield from pairwise(effects)


def _widens(ins: Instruction, work: Work) -> bool:
    """Whether a product of 16-bit numbers gives 32-bit ones.

    XLA's estimator takes the vector rate for these, fifty times what the tensor cores need.
    """
    made = ins.leaves[0].dtype if ins.leaves else ""
    return work.matmul and work.dtype in ("bf16", "f16") and made == "f32"


def _scope_of(ins: Instruction) -> str:
    match = _OP_NAME.search(ins.attributes)
    return match[1] if match else ""


def _has_side_effect(ins: Instruction) -> bool:
    if ins.opcode.replace("-", "_") in EFFECTS:
        return True
    return "custom_call_has_side_effect=true" in ins.attributes


def _xla_cost(ins: Instruction) -> float | None:
    match = _SOL_COST.search(ins.attributes)
    us = float(match[1]) if match else _UNPRICED_US
    return us if us < _LIMIT_US and us != _UNPRICED_US else None


def _index(ins: Instruction, kind: str) -> int:
    """Which parameter, or which leaf of a tuple, an instruction stands for."""
    if kind == "parameter":
        return int(integers(ins.attributes)[0])
    return int(ins.attribute("index") or 0) if kind == "get_tuple_element" else 0
