"""What an audit is made of: comparing, projecting, nudging, reading a step, counting room."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from lancet_jax.audit import leaves, outputs, room
from lancet_jax.audit.leaves import Deviation
from lancet_jax.audit.nudge import nudged
from lancet_jax.audit.room import Memory, Room
from lancet_jax.audit.sketch import Sketch
from lancet_jax.audit.step_facts import StepFacts
from lancet_jax.audit.tally import Tally, rounded_up
from tests.lancet_jax.audit.audit_steps import arguments, mesh, stepped

NAN, INF = np.nan, np.inf


def array(*values, dtype=np.float32):
    return np.array(values, dtype)


# ---------------------------------------------------------------------------- comparing


@pytest.mark.parametrize(
    ("a", "b", "is_identical", "relative"),
    [
        (array(1, -4), array(1, -4), True, 0.0),
        (array(1, -4), array(2, -4), False, 0.25),
        (array(0.0), array(-0.0), False, 0.0),
        (array(NAN, 2), array(NAN, 2), True, 0.0),
        (array(-NAN, 2), array(NAN, 3), False, 0.5),
        (array(NAN, 2), array(1, 2), False, INF),
        (array(1, 2), array(1, NAN), False, INF),
        (array(INF, 2), array(INF, 1), False, 0.5),
        (array(INF, 2), array(-INF, 2), False, INF),
        (array(INF, 2), array(5, 2), False, INF),
        (array(0.0), array(1e-9), False, 1e-9),
        (array(4, dtype=np.int32), array(5, dtype=np.int32), False, 0.25),
        (array(True), array(False), False, 1.0),
        (array(2j, dtype=np.complex64), array(1j, dtype=np.complex64), False, 0.5),
        (array(2, dtype=jnp.bfloat16), array(1, dtype=jnp.bfloat16), False, 0.5),
        (array(1), array(1, 1), False, INF),
        (array(1), array(1, dtype=np.float64), False, INF),
        (array(), array(), True, 0.0),
    ],
)
def test_deviations(a, b, is_identical, relative):
    found = Deviation.of(a, b)
    assert (found.is_identical, found.relative) == (is_identical, pytest.approx(relative))


def test_large_arrays_are_compared_to_their_end(monkeypatch):
    monkeypatch.setattr(leaves, "_CHUNK", 7)
    a = np.arange(1, 101, dtype=np.float32).reshape(4, 25)
    b = a.copy()
    assert Deviation.of(a, b).is_identical
    b[3, 24] += 1
    assert Deviation.of(a, b).relative == pytest.approx(0.01)


def test_outputs_are_compared_on_every_device():
    """Copies of one value that differ between devices are no copies."""
    spread = NamedSharding(mesh(), P())
    parts = [jax.device_put(jnp.full(3, float(i == 5)), d) for i, d in enumerate(jax.devices())]
    odd = jax.make_array_from_single_device_arrays((3,), spread, parts)
    even = jax.device_put(jnp.zeros(3), spread)
    keys = jax.random.split(jax.random.key(0), 2)
    found = outputs.compared([even, even, keys[0]], [odd, even, keys[1]])
    assert [leaf.is_identical for leaf in found] == [False, True, False]
    other = jax.device_put(jnp.zeros(8), NamedSharding(mesh(), P("e")))
    assert outputs.compared([jax.device_put(jnp.zeros(8), spread)], [other])[0].largest == INF


# ---------------------------------------------------------------------------- projecting


def test_projections_show_how_long_a_difference_is():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(70, 211)).astype(np.float32)
    for size in (1e-6, 1e-2, 1.0):
        b = a + np.float32(size) * rng.normal(size=a.shape).astype(np.float32)
        found = Sketch.of(a).deviation(Sketch.of(b))
        assert found.largest == pytest.approx(np.linalg.norm((a - b).astype(float)), rel=0.6)
        assert found.scale == pytest.approx(np.linalg.norm(a.astype(float)), rel=1e-6)
    b = a.copy()
    b[69, 210] += 1
    assert 0.3 < Sketch.of(a).deviation(Sketch.of(b)).largest < 2
    assert Sketch.of(a).deviation(Sketch.of(a.copy())).is_identical


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (array(1, 2, dtype=np.int32), array(2, 1, dtype=np.int32)),
        (array(True, False, dtype=bool), array(False, True, dtype=bool)),
        (array(1, NAN), array(NAN, 1)),
        (array(1, INF), array(1, -INF)),
        (array(1, 2), array(1, INF)),
        (array(1, 2), array(1, 2, dtype=np.int32)),
    ],
)
def test_projections_compare_exactly_what_is_no_finite_float(a, b):
    assert Sketch.of(a).deviation(Sketch.of(b)).largest == INF


KINDS = ["bool", "int4", "uint4", "int8", "uint32", "float16", "bfloat16", "float32", "complex64",
         "float8_e4m3fn", "float8_e5m2"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_is_compared_projected_and_nudged(kind):
    a = np.arange(8).astype(jnp.dtype(kind))
    b = a[::-1].copy()
    assert Deviation.of(a, a.copy()).is_identical
    assert not Deviation.of(a, b).is_identical
    assert Sketch.of(a).deviation(Sketch.of(a.copy())).is_identical
    is_float = jax.dtypes.issubdtype(a.dtype, np.inexact)
    assert (Sketch.of(a).deviation(Sketch.of(b)).largest < INF) == is_float
    (moved,) = nudged([jnp.asarray(a)], lambda dtype: float(jnp.finfo(dtype).eps) / 2)
    assert Deviation.of(a, np.asarray(moved)).is_identical != is_float


# ---------------------------------------------------------------------------- nudging


def test_a_nudge_moves_floats_by_their_last_bit_and_alike_on_all_devices():
    def unit(dtype):
        return float(jnp.finfo(dtype).eps) / 2

    whole = jax.device_put(jnp.linspace(1, 2, 64), NamedSharding(mesh(), P()))
    spread = jax.device_put(jnp.linspace(1, 2, 64), NamedSharding(mesh(), P("e")))
    given = [whole, spread, np.float32([1, 2]), jnp.arange(3), jax.random.key(1), 2.0]
    moved = nudged(given, unit)
    for before, after in zip(given[:3], moved[:3], strict=True):
        ulps = (np.asarray(after) - np.asarray(before)) / np.spacing(np.asarray(before))
        assert set(np.unique(np.abs(ulps))) <= {1.0, 2.0}
        assert {np.sign(u) for u in ulps} == {-1.0, 1.0} or len(ulps) == 2
    assert len({np.asarray(shard.data).tobytes() for shard in moved[0].addressable_shards}) == 1
    assert moved[1].sharding == spread.sharding
    assert all(a is b for a, b in zip(given[3:], moved[3:], strict=True))


# ---------------------------------------------------------------------------- judging


def tally(found, outputs, sway=None, dtype=jnp.float32):
    step = jax.jit(lambda x: x + 1).lower(jnp.ones(2, dtype)).compiler_ir()
    return Tally(StepFacts.of(step), outputs, found, sway)


def test_the_bound_is_one_of_roundings_and_integers_are_exact():
    number, integer, narrow = jnp.ones(2), jnp.ones(2, int), jnp.ones(2, jnp.bfloat16)
    near, far = Deviation(False, 1.9e-6, 1.0), Deviation(False, 2e-6, 1.0)
    found = tally([near, far, near, far], [number, number, integer, narrow])
    assert found.beyond == found.wrong == {1, 2}
    assert tally([far], [number], dtype=jnp.bfloat16).beyond == set()
    assert tally([Deviation(False, 1e-30, 0.0)], [number]).wrong == {0}
    assert (
        str(tally([near, Deviation(True)], [number, integer])) == "2 of 2 outputs equal within 2e-6"
    )


def test_what_last_bits_move_as_far_is_not_wrong():
    numbers = [jnp.ones(2)] * 3
    far, still = Deviation(False, 1.0, 1.0), Deviation(True)
    a_bit = Deviation(False, 0.05, 1.0)
    found = tally([far, far, still], numbers, [a_bit, still, still])
    assert found.wrong == {1}
    assert "1 of 3 outputs differ, output 1 differs by 1.00e+00" in str(found)
    assert [line.rsplit("  ", 1)[-1] for line in found.table()[:2]] == ["rounding", "WRONG"]
    assert "1 of 2 outputs bit-identical; 1 more (result) differ no more" in str(
        tally([far, still], numbers[:2], [a_bit, still])
    )


@pytest.mark.parametrize(
    ("share", "said"), [(0, "0"), (1.01e-7, "2e-7"), (2e-7, "2e-7"), (0.5, "5e-1")]
)
def test_shares_are_rounded_up(share, said):
    assert rounded_up(share) == said


# ---------------------------------------------------------------------------- reading a step


def test_a_steps_arguments_and_results_are_known():
    lowered = jax.jit(stepped(), donate_argnums=0).lower(*arguments())
    facts = StepFacts.of(lowered.compiler_ir())
    assert (facts.name, facts.effect) == ("jit_inside", "")
    assert facts.donated == {0, 1, 2, 3}
    assert facts.results[-1] == "result[1]"
    assert facts.path_of(0) == "result[0]['count']"
    assert facts.unit == 2.0**-24


@pytest.mark.parametrize(
    ("body", "effect"),
    [
        (lambda x: x, ""),
        (lambda x: lax.rng_uniform(x[0], x[1], (3,)), "it draws random numbers without a key"),
        (
            lambda x: jax.ffi.ffi_call("far", jax.typeof(x), has_side_effect=True)(x),
            "custom call far has side effects",
        ),
        (lambda x: jax.ffi.ffi_call("near", jax.typeof(x))(x), ""),
    ],
)
def test_effects_are_found(body, effect):
    assert StepFacts.of(jax.jit(body).lower(jnp.ones(2)).compiler_ir()).effect == effect


# ---------------------------------------------------------------------------- room


@pytest.mark.parametrize(
    ("free", "expected"),
    [(None, Room.BOTH), (10_000, Room.BOTH), (1_500, Room.ONE), (900, Room.SKIPPED)],
)
def test_room(monkeypatch, free, expected):
    class Fake:
        def local_devices(self):
            return ()

    monkeypatch.setattr(room, "free_bytes", lambda _: free)
    needed = Memory(given=500, made=100, aliased=400, temporary=600)
    monkeypatch.setattr(Memory, "of", staticmethod(lambda _: needed))
    assert Room.of(Fake(), Fake()) is expected


def test_the_fullest_device_counts():
    class Device:
        def __init__(self, used):
            self.used = used

        def memory_stats(self):
            return self.used and {"bytes_limit": 100, "bytes_in_use": self.used}

    assert room.free_bytes([Device(20), Device(60), Device(None)]) == pytest.approx(38)
    assert room.free_bytes([Device(None)]) is None


def test_memory_is_read_off_an_executable():
    step = jax.jit(lambda x, y: (x + 1, y.sum()), donate_argnums=0)
    found = Memory.of(step.lower(jnp.ones(8), jnp.ones(4)).compile().runtime_executable())
    assert (found.given, found.aliased) == (48, 32)
    assert found.total >= 48
    assert Memory.of(object()) is None
