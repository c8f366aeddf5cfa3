"""What is put around layers: loops, remat, jit in jit, microbatches, and how a step is spread."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from tests.generator.tables import Table

UNCHECKED = ("manual", "loss", "per_layer", "partial", "auto")
"""Spreads whose types do not say what varies."""

# ---------------------------------------------------------------------------------- layers


def one(block, params, x):
    return block(params[0], x)


def one_after_the_other(block, params, x):
    total, found = 0, []
    for p in params:
        x, auxiliary, metrics = block(p, x)
        total = total + auxiliary
        found.append(metrics)
    return x, total, found


def _scanned(block, params, x, **options):
    def body(x, p):
        x, auxiliary, metrics = block(p, x)
        return x, (auxiliary, metrics)

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    x, (auxiliary, metrics) = lax.scan(body, x, stacked, **options)
    return x, auxiliary.sum(), metrics


def in_branch(block, params, x):
    """Only if a weight is not far off; the same on every device."""

    def skip(p, x):
        done = jax.eval_shape(block, p, x)
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), done)

    return lax.cond(params[0]["wg"][0, 0] < 100, block, skip, params[0], x)


LAYERS = Table({
    "one": (1, one),
    "two": (2, one_after_the_other),
    "scanned": (2, _scanned),
    "scanned_unrolled": (2, functools.partial(_scanned, unroll=2)),
}, {
    "scanned_backwards": (2, functools.partial(_scanned, reverse=True)),
    "in_branch": (1, in_branch),
}, plainness=0.6, needs={"in_branch": {"spread": UNCHECKED}})  # fmt: skip
"""How many layers there are, and how they are run: of a block, its weights and tokens."""

# ---------------------------------------------------------------------------------- remat, jit


def _policy(name):
    return functools.partial(jax.checkpoint, policy=getattr(jax.checkpoint_policies, name))


REMAT = Table({
    "none": lambda f: f,
    "full": jax.checkpoint,
    "dots": _policy("dots_saveable"),
    "dots_without_batch": _policy("dots_with_no_batch_dims_saveable"),
}, {
    "everything": _policy("everything_saveable"),
    "twice": lambda f: jax.checkpoint(jax.checkpoint(f)),
})  # fmt: skip


def _own_rule(f):
    """The derivative is taken by hand, from the arguments alone."""

    @jax.custom_vjp
    def wrapped(*args):
        return f(*args)

    def forward(*args):
        return f(*args), args

    def backward(args, g):
        return jax.vjp(f, *args)[1](g)

    wrapped.defvjp(forward, backward)
    return wrapped


NEST = Table({
    "none": {},
    "jit_layer": {"layer": jax.jit},
    "jit_loss": {"loss": jax.jit},
    "jit_both": {"layer": jax.jit, "loss": jax.jit},
    "scoped": {"layer": jax.named_scope("moe")},
    "own_rule": {"layer": _own_rule},
})  # fmt: skip
"""What a layer and the loss are wrapped in."""

# ---------------------------------------------------------------------------------- microbatches


def whole(grad, params, x):
    return grad(params, x)


def _mean(trees):
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *trees)


def by_hand(grad, params, x):
    done = [grad(params, x[i]) for i in range(x.shape[0])]
    (loss, rest), grads = zip(*(value for value, _ in done), strict=True), [g for _, g in done]
    return (sum(loss), list(rest)), _mean(grads)


def by_scan(grad, params, x):
    def body(total, x):
        value, grads = grad(params, x)
        return jax.tree.map(jnp.add, total, grads), value

    zeros = jax.tree.map(jnp.zeros_like, params)
    grads, (loss, rest) = lax.scan(body, zeros, x)
    return (loss.sum(), rest), grads


def by_loop(grad, params, x):
    """A loop by number, as old code has it; only the last microbatch's metrics."""
    first = grad(params, x[0])

    def body(i, carry):
        (_, _), total = carry
        value, grads = grad(params, lax.dynamic_index_in_dim(x, i, 0, keepdims=False))
        return value, jax.tree.map(jnp.add, total, grads)

    return lax.fori_loop(1, x.shape[0], body, first)


ACCUMULATE = Table({
    "whole": (0, whole),
    "scan": (2, by_scan),
    "by_hand": (2, by_hand),
}, {
    "scan4": (4, by_scan),
    "loop": (3, by_loop),
}, plainness=0.6)  # fmt: skip
"""How many microbatches, and how gradients of them are added up."""

# ---------------------------------------------------------------------------------- spreads

SPREADS = Table({
    "manual": "one shard_map around the step",
    "manual_checked": "one shard_map, whose types say what varies over which axis",
    "loss": "a shard_map around the loss; gradients and update outside",
    "per_layer": "a shard_map around every MoE layer",
    "partial": "a shard_map per layer over the experts' axes; the others are left to XLA",
    "auto": "sharding constraints alone",
}, plainness=0.4, needs={"partial": {"mesh": ("data2_ep4", "ep2_data4", "ep4_turned", "one_more_axis")}})  # fmt: skip

SYNC = Table({"mean": lax.pmean, "sum": lax.psum, "apart": None})
"""What becomes of gradients in a shard_map: over the axes that do not cut their weight."""
