"""Which ops come before the loss, from dataflow alone."""

import jax
import jax.numpy as jnp
import numpy as np

from hlo_passes.facts.roles import before_loss
from tests.hlo_passes.cut.splitting import lower

X, W = np.ones((8, 16), np.float32), np.ones((16, 16), np.float32)


def kinds(graph, ops):
    return [graph.ops[op].kind for op in sorted(ops)]


def loss(weights, x):
    first, second = weights
    return jnp.sum(jnp.tanh(jnp.tanh(x @ first) @ second))


def test_weight_gradients_and_what_feeds_but_some_of_them_come_behind():
    graph = lower(jax.grad(loss), (W, W), X).snapshot()
    before = kinds(graph, before_loss(graph))
    assert before.count("dot_general") == 2
    assert before.count("tanh") == 2
    assert kinds(graph, range(len(graph.ops))).count("dot_general") == 5


def test_without_a_backward_pass_all_is_forward():
    graph = lower(loss, (W, W), X).snapshot()
    assert len(before_loss(graph)) == len(graph.ops)


def test_nothing_is_known_where_a_loop_is_the_backward_pass():
    def layers(weights, x):
        return jnp.sum(jax.lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, weights)[0])

    graph = lower(jax.grad(layers), np.stack([W, W, W]), X).snapshot()
    assert any(op.inner for op in graph.ops)
    assert not before_loss(graph)
