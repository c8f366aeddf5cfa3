"""A donated weight must not be overwritten before everybody has read it.

XLA decides on copies before it schedules and trusts the schedule afterwards. The first test holds
down that it does not check; the others that we do.
"""

import re

import jax.numpy as jnp
import pytest

import lancet_jax
from hlo_passes.errors import VerifyError
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.verify import verify_reordering
from lancet_jax.seams import compiling, programs
from lancet_jax.seams.step_module import copied, mark
from lancet_jax.seams.xla_options import compile_only_options
from tests.steps import CASES, Size

SIZE = Size(batch=64, seq=256, model=512, hidden=2048, dtype=jnp.bfloat16)


class Reckless(compiling.Rewriter):
    """Runs the last update of a weight as early as data allows."""

    def __init__(self):
        self.seen = []

    def compile(self, request, xla):
        clone = copied(request.module)
        mark(clone, "reckless")
        return xla.compile(clone, compile_only_options(request.devices), (self.reorder,))

    def reorder(self, proto):
        if b"reckless" not in proto:
            return None
        module = ScheduledModule.from_proto(proto)
        graph = module.snapshot()
        order = early_update(graph)
        self.seen.append((graph, order))
        return module.reordered({graph.name: order}).proto


def early_update(graph):
    """Put one weight's update, and what it needs by data alone, in front of everything else."""
    data = [{graph.values[v].op for v in op.operands} for op in graph.ops]
    late = [(a, b) for a, b in graph.ordered if graph.ops[b].kind == "fusion"]
    for reader, writer in late:
        needed, stack = set(), [writer]
        while stack:
            op = stack.pop()
            if op not in needed:
                needed.add(op)
                stack += data[op]
        if reader not in needed:
            rest = [op.id for op in graph.ops if op.id not in needed]
            return [*sorted(needed), *rest]
    raise AssertionError("no weight is updated in place")


@pytest.fixture(scope="module")
def devices():
    return lancet_jax.aot.target("h100:1x8").devices


@pytest.fixture(scope="module")
def reckless(devices):
    import jax

    case = CASES["scatter"](devices, SIZE, abstract=True)
    rewriter = Reckless()
    with compiling.rewriting(rewriter):
        compiled = jax.jit(case.step, **case.jit_kwargs).lower(*case.args).compile()
    return rewriter, programs.final_hlo(compiled)


def late_readers(text):
    """Return (reader, writer) pairs where a donated parameter is read after it is overwritten.

    Written against the text, apart from `hlo_passes.ir.hlo.aliases`.
    """
    entry = text[text.index("\nENTRY") :]
    lines = [line for line in entry.split("\n") if " = " in line]
    names = [re.search(r"%([\w.\-]+) =", line)[1] for line in lines]
    place = {name: i for i, name in enumerate(names)}
    parameters = {
        int(m[1]): names[i] for i, line in enumerate(lines)
        if (m := re.search(r" parameter\((\d+)\)", line))
    }  # fmt: skip
    root = next(line for line in lines if line.strip().startswith("ROOT"))
    outputs = re.findall(r"%([\w.\-]+)", root[root.index(" tuple(") :])
    found = []
    for out, parameter in re.findall(r"\{(\d+)\}: \((\d+), \{\}", text[: text.index("\n")]):
        writer, name = outputs[int(out)], parameters[int(parameter)]
        readers = [n for n, line in zip(names, lines, strict=True)
                   if re.search(rf"%{re.escape(name)}[,)]", line) and n != names[-1]]  # fmt: skip
        found += [(r, writer) for r in readers if place[r] > place[writer]]
    return found


def test_xla_accepts_a_schedule_that_overwrites_first(reckless):
    _, text = reckless
    assert late_readers(text)


def test_our_verifier_refuses_it(reckless):
    (graph, order), *_ = reckless[0].seen
    with pytest.raises(VerifyError, match="which it needs"):
        verify_reordering(graph, {graph.name: order})


@pytest.mark.parametrize("name", ["scatter", "remat", "accumulation"])
def test_our_schedules_read_first(devices, name):
    case = CASES[name](devices, SIZE, abstract=True)
    step = lancet_jax.jit(case.step, **case.jit_kwargs)
    compiled = step.lower(*case.args).compile()
    assert late_readers(compiled.as_text()) == []
