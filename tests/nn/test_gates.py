"""Gates against a slow reference: one token at a time, one counter an expert."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lancet_jax.nn import GATES, ExpertRouting, Gate, Routing, gate_named
from lancet_jax.nn.gates import BatchPrioritised, ExpertChoice, GShard, Hash, Random, Switch, TopK
from lancet_jax.nn.routing import expert_capacity, load_balance_loss

TOKENS, EXPERTS = 48, 6
KEY = jax.random.key(7)
IDS = jnp.asarray(np.random.default_rng(5).integers(0, 256, TOKENS), jnp.int32)

ROUTED = [Switch(), TopK(1), TopK(2), TopK(3), GShard(), BatchPrioritised(1), BatchPrioritised(2)]


def draw_logits(skew: float, seed: int = 0) -> jax.Array:
    """Random logits `[T, E]` that favour expert 0 by `skew`."""
    logits = np.random.default_rng(seed).normal(size=(TOKENS, EXPERTS))
    logits[:, 0] += skew
    return jnp.asarray(logits, jnp.float32)


def route(gate: Gate, logits: jax.Array, factor: float) -> Routing | ExpertRouting:
    capacity = expert_capacity(logits.shape[0], gate.k, EXPERTS, factor)
    ids = IDS[: logits.shape[0]]
    return gate.route(logits, capacity, token_ids=ids, key=KEY)


def turns(gate: Gate, scores: np.ndarray) -> list[tuple[int, int]]:
    """The order in which (token, choice) pairs take slots."""
    tokens, choices = range(len(scores)), range(gate.k)
    if isinstance(gate, BatchPrioritised):
        tokens = sorted(tokens, key=lambda token: (-scores[token].max(), token))
    if gate.whole_batch:
        return [(token, choice) for choice in choices for token in tokens]
    return [(token, choice) for token in tokens for choice in choices]


def slots_one_by_one(expert: np.ndarray, order: list[tuple[int, int]]) -> np.ndarray:
    used = [0] * EXPERTS
    slot = np.full(expert.shape, -1)
    for token, choice in order:
        slot[token, choice] = used[expert[token, choice]]
        used[expert[token, choice]] += 1
    return slot


@pytest.mark.parametrize("gate", ROUTED, ids=repr)
@pytest.mark.parametrize("factor", [0.5, 1.0, 1.25])
@pytest.mark.parametrize("skew", [0.0, 2.0])
def test_routing_is_that_of_one_token_at_a_time(gate: Gate, factor: float, skew: float):
    logits = draw_logits(skew)
    scores = np.asarray(jax.nn.softmax(logits))
    expert = np.argsort(-scores, axis=-1, kind="stable")[:, : gate.k]
    weight = np.take_along_axis(scores, expert, axis=-1)
    if gate.k > 1:
        weight = weight / weight.sum(-1, keepdims=True)
    slot = slots_one_by_one(expert, turns(gate, scores))
    capacity = int(factor * -(-TOKENS * gate.k // EXPERTS))

    routing = route(gate, logits, factor)

    np.testing.assert_array_equal(routing.expert, expert)
    np.testing.assert_array_equal(routing.slot, slot)
    np.testing.assert_array_equal(routing.kept, slot < capacity)
    np.testing.assert_allclose(routing.weight, weight, rtol=1e-6)
    np.testing.assert_allclose(routing.dropped, (slot >= capacity).mean(), rtol=1e-5, atol=1e-7)
    assert routing.slot.dtype == routing.expert.dtype == jnp.int32


@pytest.mark.parametrize("gate", [Switch(), GShard(), BatchPrioritised()], ids=repr)
def test_a_skewed_load_drops_tokens_and_a_large_capacity_drops_none(gate: Gate):
    logits = draw_logits(skew=2.0)
    assert route(gate, logits, 0.5).dropped > 0.4
    assert route(gate, logits, float(EXPERTS)).dropped == 0.0


def test_batch_priority_keeps_the_surest_tokens():
    logits = draw_logits(skew=3.0)
    routing = route(BatchPrioritised(), logits, 0.5)
    certainty = np.asarray(routing.weight[:, 0])
    to_first = np.asarray(routing.expert[:, 0]) == 0
    kept = np.asarray(routing.kept[:, 0])
    assert certainty[to_first & kept].min() > certainty[to_first & ~kept].max()


def test_batch_priority_breaks_ties_by_token_order():
    routing = route(BatchPrioritised(), jnp.zeros((TOKENS, EXPERTS)), 1.0)
    np.testing.assert_array_equal(routing.slot[:, 0], np.arange(TOKENS))


@pytest.mark.parametrize("gate", [*ROUTED, Random(), Random(2), Hash()], ids=repr)
def test_whole_batch_tells_whether_later_tokens_matter(gate: Gate):
    logits = draw_logits(skew=1.0)
    half = TOKENS // 2
    first, both = route(gate, logits[:half], 1.0), route(gate, logits, 1.0)
    np.testing.assert_array_equal(first.expert, both.expert[:half])
    same = np.array_equal(first.slot, both.slot[:half])
    assert same != gate.whole_batch


def test_expert_choice_takes_the_best_tokens_of_the_whole_batch():
    logits = draw_logits(skew=0.0)
    scores = np.asarray(jax.nn.softmax(logits))
    routing = route(ExpertChoice(k=2), logits, 0.5)
    best = np.argsort(-scores.T, axis=-1, kind="stable")[:, : TOKENS // EXPERTS]
    np.testing.assert_array_equal(routing.token, best)
    np.testing.assert_allclose(routing.weight, np.take_along_axis(scores.T, best, -1), rtol=1e-6)
    unseen = 1 - len(np.unique(best)) / TOKENS
    assert 0 < unseen < 1
    np.testing.assert_allclose(routing.dropped, unseen, rtol=1e-5)


def test_expert_choice_cannot_take_more_tokens_than_there_are():
    routing = ExpertChoice().route(draw_logits(0.0), capacity=TOKENS + 5)
    assert routing.token.shape == (EXPERTS, TOKENS)
    assert routing.dropped == 0.0


def test_hash_depends_on_the_vocabulary_id_alone():
    routing = route(Hash(), draw_logits(0.0), 1.0)
    mixed = [((int(token) * 2654435761) % 2**32 >> 16) % EXPERTS for token in IDS]
    np.testing.assert_array_equal(routing.expert[:, 0], mixed)
    assert len(set(mixed)) == EXPERTS
    np.testing.assert_array_equal(
        routing.slot, slots_one_by_one(np.array(mixed)[:, None], turns(Hash(), np.zeros(IDS.shape)))
    )


def test_random_draws_distinct_experts_from_the_key():
    logits = draw_logits(0.0)
    one, other = (Random(k=2).route(logits, 99, key=jax.random.key(seed)).expert for seed in (0, 1))
    assert np.all(one[:, 0] != one[:, 1])
    assert set(np.unique(one)) == set(range(EXPERTS))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(("gate", "missing"), [(Random(), "key="), (Hash(), "token_ids=")])
def test_a_missing_input_is_named(gate: Gate, missing: str):
    with pytest.raises(ValueError, match=missing):
        gate.route(draw_logits(0.0), 4)


def test_balance_loss_is_one_when_even_and_the_number_of_experts_when_not():
    even = jnp.full((TOKENS, EXPERTS), 1 / EXPERTS)
    spread = jnp.arange(TOKENS)[:, None] % EXPERTS
    np.testing.assert_allclose(load_balance_loss(even, spread), 1.0, rtol=1e-6)
    one = jnp.zeros((TOKENS, EXPERTS)).at[:, 2].set(1.0)
    np.testing.assert_allclose(load_balance_loss(one, jnp.full((TOKENS, 1), 2)), EXPERTS, rtol=1e-6)


def test_gshard_balances_first_choices_and_top_k_all():
    logits = draw_logits(skew=1.0)
    scores = jax.nn.softmax(logits)
    best = jax.lax.top_k(scores, 2)[1]
    gshard, top_k = (route(gate, logits, 1.0).balance_loss for gate in (GShard(), TopK(2)))
    np.testing.assert_allclose(gshard, load_balance_loss(scores, best[:, :1]), rtol=1e-6)
    np.testing.assert_allclose(top_k, load_balance_loss(scores, best), rtol=1e-6)
    assert abs(gshard - top_k) > 1e-3


def test_balance_loss_pushes_against_the_crowded_expert():
    logits = draw_logits(skew=2.0)
    gradient = jax.grad(lambda x: Switch().route(x, 8).balance_loss)(logits)
    assert gradient[:, 0].sum() > 0 > gradient[:, 1:].sum()


@pytest.mark.parametrize(
    ("tokens", "experts", "factor", "rows"),
    # The first four are the paper's configurations on 8 and 64 GPUs.
    [
        (24576, 16, 1.0, 1536),
        (12288, 16, 1.0, 768),
        (8192, 128, 1.0, 64),
        (4096, 128, 1.0, 32),
        (10, 4, 1.25, 3),
        (4, 64, 0.5, 1),
    ],
)
def test_capacity(tokens: int, experts: int, factor: float, rows: int):
    assert expert_capacity(tokens, 1, experts, factor) == rows


def test_gates_are_found_by_name():
    assert gate_named("switch", 1) == Switch()
    assert gate_named("top_k", 4) == TopK(k=4)
    assert gate_named("expert_choice") == ExpertChoice()
    assert all(isinstance(gate_named(name), Gate) for name in GATES)


def test_an_unknown_gate_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'swich'.*switch, top_k, gshard"):
        gate_named("swich")


@pytest.mark.parametrize("name", ["switch", "gshard", "hash"])
def test_a_fixed_number_of_choices_cannot_be_changed(name: str):
    with pytest.raises(ValueError, match="not 7"):
        gate_named(name, 7)
