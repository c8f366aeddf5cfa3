"""What the backward pass computes again is found by dataflow, of StableHLO and of HLO."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from hlo_passes.facts.recompute import recomputed_in
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from hlo_passes.ir.stablehlo.module import Module


def lowered(wrap):
    """Lower a small step whose layer `wrap` may checkpoint."""
    mesh = Mesh(np.array(jax.devices()), ("ep",))

    def layer(x, w):
        y = jnp.tanh(lax.all_to_all(x @ w, "ep", 0, 0, tiled=True) @ w)
        return jnp.tanh(lax.all_to_all(y, "ep", 0, 0, tiled=True))

    def inside(x, w, v):
        def loss(w, v):
            return jnp.sum(wrap(layer)(wrap(layer)(x, w), v) ** 2)

        return jax.grad(loss, argnums=(0, 1))(w, v)

    specs = {"in_specs": (P("ep"), P(), P()), "out_specs": P("ep"), "check_vma": False}
    step = jax.shard_map(inside, mesh=mesh, **specs)
    x, w = jnp.ones((128, 16)), jnp.ones((16, 16))
    return jax.jit(step).lower(x, w, w)


def module_of(low):
    return Module.copy_of(low.compiler_ir())


def kinds(module, found):
    """Count the kinds of the ops that repeat others."""
    ops = {op.key: op.kind for graph, _ in module.snapshot().walk() for op in graph.ops}
    return [ops[key] for key in found.repeats], {ops[k] == ops[o] for k, o in found.repeats.items()}


def test_a_checkpointed_layer():
    """Its products, tanhs and exchanges run twice, and their scopes agree."""
    module = module_of(lowered(jax.checkpoint))
    found = recomputed_in(module)
    again, alike = kinds(module, found)
    assert alike == {True}
    assert again.count("dot_general") >= 2
    assert again.count("all_to_all") >= 2
    assert again.count("tanh") >= 2
    assert found.agreed


def test_a_step_that_keeps_all():
    """Computes nothing twice that XLA would not merge."""
    found = recomputed_in(module_of(lowered(lambda layer: layer)))
    assert not found.repeats
    assert not found.scoped


def test_no_scope_is_needed():
    """The same is found in text without locations; without a barrier XLA merges the two."""
    text = module_of(lowered(jax.checkpoint)).text()
    found = recomputed_in(Module.parse(text))
    assert found.repeats
    assert not found.agreed
    assert not found.scoped
    plain = Module.parse(_without_barriers(text))
    assert not recomputed_in(plain).repeats


def _without_barriers(text):
    """Let every reader of a barrier's results read its operands."""
    names, kept = {}, []
    value = re.compile(r"%\w+(?:#\d+)?")
    for line in text.splitlines():
        line = value.sub(lambda m, now=names: now.get(m[0], m[0]), line)
        if "optimization_barrier" in line:
            result = line.split(" = ")[0].strip().partition(":")[0]
            operands = value.findall(line.split(" = ")[1])
            many = {f"{result}#{i}": name for i, name in enumerate(operands)}
            names |= many if len(operands) > 1 else {result: operands[0]}
        else:
            kept.append(line)
    return "\n".join(kept)


HLO = """HloModule jit_step, is_scheduled=true

%one (p: f32[8,8]) -> f32[8,8] {
  %p = f32[8,8]{1,0} parameter(0)
  ROOT %t = f32[8,8]{1,0} tanh(%p)
}

%other (q: f32[8,8]) -> f32[8,8] {
  %q = f32[8,8]{1,0} parameter(0)
  ROOT %u = f32[8,8]{1,0} FUNCTION(%q)
}

ENTRY %main (x: f32[8,8], w: f32[8,8], v: f32[8,8]) -> (f32[8,8], f32[8,8]) {
  %x = f32[8,8]{1,0} parameter(0)
  %w = f32[8,8]{1,0} parameter(1)
  %v = f32[8,8]{1,0} parameter(2)
  %xw = f32[8,8]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %a = f32[8,8]{1,0} fusion(%xw), kind=kLoop, calls=%one
  %av = f32[8,8]{1,0} dot(%a, %v), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %g = f32[8,8]{1,0} tanh(%av)
  %xw.again = f32[8,8]{1,0} dot(%COPY, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %b = f32[8,8]{1,0} fusion(%xw.again), kind=kLoop, calls=%other
  %dv = f32[8,8]{1,0} dot(%b, %g), lhs_contracting_dims={0}, rhs_contracting_dims={0}
  %da = f32[8,8]{1,0} dot(%g, %v), lhs_contracting_dims={1}, rhs_contracting_dims={1}
  %dw = f32[8,8]{1,0} dot(%x, %da), lhs_contracting_dims={0}, rhs_contracting_dims={0}
  ROOT %out = (f32[8,8]{1,0}, f32[8,8]{1,0}) tuple(%dv, %dw)
}
"""


@pytest.mark.parametrize(
    ("function", "read", "expected"),
    [("tanh", "x", {"xw.again", "b"}), ("sine", "x", {"xw.again"}), ("tanh", "v", set())],
)
def test_hlo(function, read, expected):
    """A fusion counts by what it calls, and an op by what it reads."""
    module = ScheduledModule(HLO.replace("FUNCTION", function).replace("COPY", read))
    ops = {op.key: op.name for op in module.snapshot().ops}
    assert {ops[key] for key in recomputed_in(module).repeats} == expected


def test_compiled_for_cpu():
    """XLA leaves the recomputation in; nothing is claimed of a step that keeps all."""
    module = ScheduledModule(lowered(jax.checkpoint).compile().as_text())
    again, _ = kinds(module, recomputed_in(module))
    assert again.count("all_to_all") >= 2
    assert again.count("fusion") >= 2
    kept = ScheduledModule(lowered(lambda layer: layer).compile().as_text())
    assert not recomputed_in(kept).repeats
