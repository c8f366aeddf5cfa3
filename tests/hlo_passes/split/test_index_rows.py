"""One-hot products become rows where that is the same, and are left alone where it is not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.split.unmask import index_module
from lancet_jax.seams import compiling
from lancet_jax.seams.step_module import mark
from tests.one_hot_steps import MASKS

TOKENS, EXPERTS, SLOTS, WIDTH, DEVICES = 24, 4, 4, 8, 2
# Sums of at most 24 terms in another order, u = 2^-24: 2 n u of the largest is 3e-6.
BOUND = 3e-6


def layer(mask, x, router, after=lambda *values: 0.0):
    """One device's tokens `[T, D]` through experts that are far away, and some loss."""
    gates = jax.nn.softmax(x @ router)
    dispatch, combine = mask(gates)
    sent = lax.all_to_all(jnp.einsum("tec,td->ecd", dispatch, x), "ep", 0, 1, tiled=True)
    back = lax.all_to_all(jnp.tanh(sent) * 2, "ep", 1, 0, tiled=True)
    y = jnp.einsum("tec,ecd->td", combine, back)
    return jnp.sum(y * jnp.cos(jnp.arange(WIDTH))) + after(combine, back)


def step_of(loss):
    """Return a function of tokens and a router, with gradients, on two devices."""
    mesh = Mesh(np.array(jax.devices()[:DEVICES]), ("ep",))

    def body(x, router):
        value, grads = jax.value_and_grad(loss, (0, 1))(x, router)
        return value[None], (grads[0], grads[1][None])

    return jax.shard_map(
        body, mesh=mesh, in_specs=(P("ep"), P()), out_specs=(P("ep"), P("ep")), check_vma=False
    )


def arguments(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(DEVICES * TOKENS, WIDTH)).astype(np.float32)
    return x, rng.normal(size=(WIDTH, EXPERTS)).astype(np.float32)


class Rewriter:
    """Replaces products where jit compiles."""

    def compile(self, request, xla):
        copy = Module.copy_of(request.module)
        with copy.ir.context:
            regions = {graph.name: range(len(graph.ops)) for graph, _ in copy.snapshot().walk()}
            self.found = index_module(copy, regions)
        self.found.module.verify()
        mark(self.found.module.ir, "rows")
        return xla.compile(self.found.module.ir)


def rewritten(step, args):
    """Return what a rewritten step gives, and what was rewritten."""
    rewriter = Rewriter()
    with compiling.rewriting(rewriter):
        got = jax.jit(lambda *a: step(*a))(*args)
    return got, rewriter.found


def found_in(loss):
    """Return what would be rewritten, without running it."""
    module = Module.parse(jax.jit(step_of(loss)).lower(*arguments()).as_text())
    with module.ir.context:
        regions = {graph.name: range(len(graph.ops)) for graph, _ in module.snapshot().walk()}
        return index_module(module, regions)


def is_same(expected, got) -> bool:
    pairs = zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True)
    return all(np.abs(a - b).max() <= BOUND * max(np.abs(a).max(), 1e-3) for a, b in pairs)


@pytest.mark.parametrize("name", MASKS)
def test_the_usual_masks_are_found_in_both_directions(name):
    found = found_in(functools.partial(layer, functools.partial(MASKS[name], slots=SLOTS)))
    assert len(found.chosen["main"]) == 4, found.refusals
    text = found.module.text()
    assert text.count('"stablehlo.scatter"') >= 2
    assert "tensor<24x4x4xf32>, tensor<24x8xf32>" not in text


@pytest.mark.parametrize("name", ["positions"])
def test_the_numbers_are_the_same(name):
    step = step_of(functools.partial(layer, functools.partial(MASKS[name], slots=SLOTS - 1)))
    got, found = rewritten(step, arguments())
    assert len(found.chosen["main"]) == 4
    assert is_same(jax.jit(step)(*arguments()), got)


# --- masks that look like one-hot ones


def hot_and_slot(gates):
    hot = jax.nn.one_hot(jnp.argmax(gates, -1), EXPERTS)
    return hot, jnp.sum((jnp.cumsum(hot, 0) - 1) * hot, -1).astype(jnp.int32)


def with_slot(change):
    """A mask whose slots are changed."""

    def mask(gates):
        hot, slot = hot_and_slot(gates)
        made = hot[..., None] * jax.nn.one_hot(change(slot, hot), SLOTS)[:, None, :]
        return made, made * jnp.max(gates, -1)[:, None, None]

    return mask


def with_mask(change):
    """A mask that is changed."""

    def mask(gates):
        hot, slot = hot_and_slot(gates)
        made = change(hot[..., None] * jax.nn.one_hot(slot, SLOTS)[:, None, :])
        return made, made * jnp.max(gates, -1)[:, None, None]

    return mask


def second_choices(gates):
    """Two masks added up, each of which counts its own slots from zero."""
    both = []
    for weight, chosen in zip(*(v.T for v in lax.top_k(gates, 2)), strict=True):
        hot = jax.nn.one_hot(chosen, EXPERTS)
        slot = jnp.sum((jnp.cumsum(hot, 0) - 1) * hot, -1).astype(jnp.int32)
        made = hot[..., None] * jax.nn.one_hot(slot, SLOTS)[:, None, :]
        both.append((made, made * weight[:, None, None]))
    return both[0][0] + both[1][0], both[0][1] + both[1][1]


WRONG = {
    "slots that wrap around": with_slot(lambda slot, hot: slot % SLOTS),
    "slots that end at the last": with_slot(lambda slot, hot: jnp.minimum(slot, SLOTS - 1)),
    "slots of another's expert": with_slot(
        lambda slot, hot: jnp.sum((jnp.cumsum(jnp.roll(hot, 1, 1), 0) - 1) * hot, -1).astype(int)
    ),
    "halves": with_slot(lambda slot, hot: slot // 2),
    "all slots": with_mask(lambda mask: jnp.broadcast_to(mask.sum(-1, keepdims=True), mask.shape)),
    "a little everywhere": with_mask(lambda mask: mask + 1e-3),
    "the others": with_mask(lambda mask: 1 - mask),
    "a mask of exponentials": with_mask(jnp.exp),
    "next tokens' rows": with_mask(lambda mask: jnp.roll(mask, 1, 0)),
    "second choices from zero": second_choices,
}


@pytest.mark.parametrize("name", WRONG)
def test_masks_that_are_not_one_hot_stay(name):
    assert not found_in(functools.partial(layer, WRONG[name])).chosen


@pytest.mark.parametrize(
    "after",
    [
        lambda combine, back: jnp.sum(back**2),
        lambda combine, back: jnp.sum(back[0]),
        # As the gradient of a mask, but all of its elements are wanted.
        lambda combine, back: jnp.sum(pairs_of(back) ** 2),
        lambda combine, back: jnp.sum(pairs_of(back) * jnp.roll(combine, 1, 2)),
    ],
)
def test_buffers_that_others_read_stay(after):
    """What comes home is read by others, and its gradient is a sum: both exchanges stay."""
    mask = functools.partial(MASKS["products"], slots=SLOTS)
    found = found_in(functools.partial(layer, mask, after=after))
    assert any("reads what came" in why for _, _, why in found.refusals)
    assert len(found.chosen["main"]) == 2


def test_what_others_multiply_with_the_mask_is_read_by_index():
    mask = functools.partial(MASKS["products"], slots=SLOTS)
    loss = functools.partial(
        layer, mask, after=lambda combine, back: jnp.sum(pairs_of(back) * combine)
    )
    assert len(found_in(loss).chosen["main"]) == 3


@pytest.mark.parametrize("further", ["expert", "token"])
def test_what_else_has_to_hold_is_read_out_of_the_mask(further):
    """Only tokens whose expert is another's too, or whose number is even, are sent at all."""

    def mask(gates):
        hot, slot = hot_and_slot(gates)
        made = hot[..., None] * jax.nn.one_hot(slot, SLOTS)[:, None, :]
        places = jnp.arange(TOKENS)
        if further == "expert":
            sent = made * jax.nn.one_hot(places // 3 % EXPERTS, EXPERTS)[..., None]
        else:
            sent = made * (places // 2 * 2 == places)[:, None, None]
        return sent, made * jnp.max(gates, -1)[:, None, None]

    step = step_of(functools.partial(layer, mask))
    got, found = rewritten(step, arguments())
    assert len(found.chosen["main"]) == 4
    assert is_same(jax.jit(step)(*arguments()), got)


def pairs_of(back):
    """Multiply all tokens with all rows."""
    return jnp.einsum("td,ecd->tec", jnp.ones((TOKENS, WIDTH)), back)


CHOICES = {
    "expert": ("argmax", "any", "top_k"),
    "kind": ("float32", "int32", "int8", "bfloat16"),
    "count": ("less one", "before", "times mask", "of another", "of all", "backwards"),
    "drop": ("none", "minus", "beyond", "expert", "last"),
    "form": ("product", "positions", "flags", "einsum", "unmasked"),
    "twice": (False, True),
    "weight": ("gate", "gates", "signed"),
    "sent": ("mask", "positive", "weighted", "not zero"),
}
"""Ways to make masks, right or wrong; the first of each is right with the first of all others."""


@st.composite
def programs(draw):
    """Draw a mask that is right but for three choices at most."""
    program = {name: choices[0] for name, choices in CHOICES.items()}
    for name in draw(st.lists(st.sampled_from(sorted(CHOICES)), max_size=3)):
        program[name] = draw(st.sampled_from(CHOICES[name]))
    return program


def mask_of(program, gates):
    """Build what a program sends and combines with."""
    kind = jnp.dtype(program["kind"])
    weight, expert = lax.top_k(gates, 2 if program["expert"] == "top_k" else 1)
    if program["expert"] == "any":
        expert = (gates[:, :1] * 97).astype(jnp.int32) % (EXPERTS + 1)
    hot = jax.nn.one_hot(expert, EXPERTS, dtype=kind)
    flat = hot.reshape(-1, EXPERTS)
    table = {
        "before": lambda: jnp.cumsum(flat, 0, dtype=kind) - flat,
        "less one": lambda: jnp.cumsum(flat, 0, dtype=kind) - 1,
        "of another": lambda: jnp.cumsum(jnp.roll(flat, 1, 0), 0, dtype=kind) - 1,
        "of all": lambda: jnp.cumsum(jnp.ones_like(flat), 1, dtype=kind) - 1,
        "times mask": lambda: jnp.cumsum(flat, 0, dtype=kind) * flat - 1,
        "backwards": lambda: jnp.cumsum(flat[::-1], 0, dtype=kind)[::-1] - 1,
    }[program["count"]]().reshape(hot.shape)
    slot = jnp.sum(table * hot, -1)
    drops = {
        "none": lambda v: v,
        "last": lambda v: jnp.minimum(v, SLOTS - 1),
        "minus": lambda v: jnp.where(v < SLOTS, v, -1),
        "beyond": lambda v: jnp.where(v < SLOTS, v, SLOTS + 2),
        "expert": lambda v: v,
    }
    slot, table = (drops[program["drop"]](v.astype(jnp.int32)) for v in (slot, table))
    if program["drop"] == "expert":
        expert = jnp.where(slot < SLOTS, expert, EXPERTS)
    hot = jax.nn.one_hot(expert, EXPERTS)
    masks = {
        "product": lambda: hot[..., None] * jax.nn.one_hot(slot, SLOTS)[:, :, None, :],
        "positions": lambda: hot[..., None] * jax.nn.one_hot(table, SLOTS),
        "unmasked": lambda: jax.nn.one_hot(table, SLOTS),
        "flags": lambda: (
            (expert[..., None] == jnp.arange(EXPERTS))[..., None]
            & (slot[..., None] == jnp.arange(SLOTS))[:, :, None, :]
        ).astype(jnp.float32),
        "einsum": lambda: jnp.einsum("tke,tkc->tkec", hot, jax.nn.one_hot(slot, SLOTS)),
    }
    mask = masks[program["form"]]()
    if program["twice"]:
        mask = mask * mask
    weights = {
        "gate": lambda: weight[..., None, None],
        "gates": lambda: gates[:, None, :, None],
        "signed": lambda: weight[..., None, None] - 0.4,
    }
    combine = jnp.sum(mask * weights[program["weight"]](), 1)
    sent = {
        "mask": lambda: jnp.sum(mask, 1),
        "positive": lambda: (combine > 0).astype(jnp.float32),
        "weighted": lambda: combine,
        "not zero": lambda: combine.astype(bool).astype(jnp.float32),
    }
    return sent[program["sent"]](), combine


def check_program(program, seed):
    """If anything is rewritten, the numbers are the same."""
    loss = functools.partial(layer, functools.partial(mask_of, program))
    if not found_in(loss).chosen:
        return
    step = step_of(loss)
    got, found = rewritten(step, arguments(seed))
    assert found.chosen
    assert is_same(jax.jit(step)(*arguments(seed)), got), program


QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=3, derandomize=True, **QUIET)
@given(programs(), st.integers(0, 2**31 - 1))
def test_whatever_is_rewritten_gives_the_same(program, seed):
    check_program(program, seed)


@pytest.mark.slow
@settings(max_examples=20, **QUIET)
@given(programs(), st.integers(0, 2**31 - 1))
def test_whatever_is_rewritten_of_many_gives_the_same(program, seed):
    check_program(program, seed)
