"""What is made of gradients: `init(params)` and `update(grads, state, params)`, as optax has them."""

import jax
import jax.numpy as jnp
import optax

from tests.generator.tables import Table
from tests.generator.wrappers import UNCHECKED


def _by_hand(rate=0.1):
    """Adam as people write it into their step."""

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return {"m": zeros, "v": zeros, "t": jnp.zeros((), jnp.int32)}

    def update(grads, state, params=None):
        t = state["t"] + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state["m"], grads)
        v = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g * g, state["v"], grads)
        steps = jax.tree.map(lambda m, v: -rate * m / (jnp.sqrt(v) + 1e-2), m, v)
        return steps, {"m": m, "v": v, "t": t}

    return optax.GradientTransformation(init, update)


OPTIMIZERS = Table({
    "sgd": optax.sgd(0.1),
    "gradients": optax.GradientTransformation(lambda p: (), lambda g, s, p=None: (g, s)),
    "momentum": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adamw": optax.adamw(1e-2, eps=1e-3),
    "adam_by_hand": _by_hand(),
    "clipped": optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1)),
    "rmsprop": optax.rmsprop(1e-2, eps=1e-2),
    "decayed": optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(0.1)),
}, {
    "adafactor": optax.adafactor(1e-2, min_dim_size_to_factor=1000, eps=1e-6),
    "not_finite": optax.apply_if_finite(optax.sgd(0.1), 3),
    "every_two": optax.MultiSteps(optax.sgd(0.1), 2),
}, needs={name: {"spread": UNCHECKED} for name in ("clipped", "not_finite", "adafactor")})  # fmt: skip
