"""What stopping XLA once it has scheduled relies on, pinned. A failure here names what has changed."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import lancet_jax
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from lancet_jax.seams import cuda
from lancet_jax.seams.compiling import rewriting
from lancet_jax.seams.step_module import copied_apart, mark
from lancet_jax.seams.xla_options import compile_only_options


@dataclass(frozen=True)
class Does:
    """Hands what jit is about to compile to a function."""

    act: Any

    def compile(self, request, xla):
        return self.act(request, xla)


@pytest.fixture(params=["cpu", "cuda"])
def mesh(request):
    if request.param == "cpu":
        return Mesh(np.array(jax.devices()[:8]), ("a",))
    if cuda.cuda_plugin() is None:
        pytest.skip("the CUDA plugin is not installed")
    return lancet_jax.aot.target("h100:1x8").mesh(a=8)


def lowered(mesh, scale=2.0):
    """A step with exchanges and products, for shapes alone."""

    def body(x, w):
        sent = lax.all_to_all(x @ w, "a", 0, 0, tiled=True)
        return lax.psum(jnp.sin(sent) * scale, "a"), x @ x.T

    def step(x, w):
        return jax.shard_map(
            body, mesh=mesh, in_specs=(P("a"), P()), out_specs=(P(), P("a")), check_vma=False
        )(x, w)

    def shape(*dims, spec=P()):
        return jax.ShapeDtypeStruct(dims, jnp.float32, sharding=NamedSharding(mesh, spec))

    return jax.jit(step).lower(shape(512, 64, spec=P("a")), shape(64, 64))


def marked(module, salt):
    copy = copied_apart(module)
    mark(copy, salt)
    return copy


def acting(mesh, act):
    """Let a function act where jit compiles a step."""
    with rewriting(Does(act)):
        return lowered(mesh).compile()


def module_of(proto):
    return ScheduledModule.from_proto(proto, devices=8)


def test_xla_stops_once_it_has_scheduled_at_what_the_full_compile_hands_out(mesh):
    seen = {}

    def act(request, xla):
        options, module = compile_only_options(request.devices), marked(request.module, "salt-of-a")
        before = list(xla._options.env_option_overrides)
        seen["stopped"] = xla.scheduled(module, "salt-of-a", options)
        assert list(xla._options.env_option_overrides) == before

        def on_scheduled(proto):
            if b"salt-of-a" in proto:
                seen["full"] = proto

        return xla.compile(marked(request.module, "salt-of-a"), options, [on_scheduled])

    compiled = acting(mesh, act)
    stopped, full = module_of(seen["stopped"]), module_of(seen["full"])
    assert stopped.fingerprint == full.fingerprint
    assert "is_scheduled=true" in stopped.text
    assert any(op.collective for op in stopped.snapshot().ops)
    assert "salt-of-a" in compiled.as_text()


def test_what_was_stopped_compiles_afterwards_and_may_be_stopped_again(mesh):
    found = []

    def act(request, xla):
        options = compile_only_options(request.devices)
        for _ in range(2):
            module = marked(request.module, "salt-of-b")
            found.append(module_of(xla.scheduled(module, "salt-of-b", options)).fingerprint)
        return xla.compile(options=options)

    assert "salt-of-b" not in acting(mesh, act).as_text()
    assert found[0] == found[1]


def test_options_reach_what_is_stopped(mesh):
    """Without fusion there is another module: nothing of an earlier compile is handed out."""

    def act(request, xla):
        options = compile_only_options(request.devices)
        without = options | {"xla_disable_hlo_passes": "fusion,priority-fusion,multi_output_fusion"}
        one, other = (
            module_of(xla.scheduled(marked(request.module, "salt-of-c"), "salt-of-c", given))
            for given in (options, without)
        )
        assert one.fingerprint != other.fingerprint
        return xla.compile(options=options)

    acting(mesh, act)


def test_what_xla_cannot_compile_says_so(mesh):
    def act(request, xla):
        options = compile_only_options(request.devices)
        with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
            xla.scheduled(
                marked(request.module, "salt-of-d"),
                "salt-of-d",
                options | {"xla_no_such_option": 1},
            )
        return xla.compile(options=options)

    acting(mesh, act)


def test_two_that_are_stopped_at_once_do_not_mix(mesh):
    """Callbacks see the modules of all threads; each has to know its own by its mark."""
    scales = {f"salt-of-{name}": scale for name, scale in (("e", 3.25), ("f", 5.75))}
    modules = {salt: lowered(mesh, scale).compiler_ir() for salt, scale in scales.items()}

    def act(request, xla):
        options = compile_only_options(request.devices)
        given = {salt: [marked(module, salt) for _ in range(3)] for salt, module in modules.items()}
        with ThreadPoolExecutor(2) as pool:
            for _ in range(3):
                begun = {
                    salt: pool.submit(xla.scheduled, waiting.pop(), salt, options)
                    for salt, waiting in given.items()
                }
                for salt, future in begun.items():
                    proto, (other,) = future.result(), scales.keys() - {salt}
                    assert salt.encode() in proto
                    assert other.encode() not in proto
                    text = module_of(proto).text
                    assert f"constant({scales[salt]})" in text
                    assert f"constant({scales[other]})" not in text
        return xla.compile(options=options)

    acting(mesh, act)


def test_many_that_are_stopped_at_once_do_not_crash_xla(mesh):
    """XLA ends the process if what it calls is registered or cleared while it compiles."""

    def act(request, xla):
        options = compile_only_options(request.devices)
        salts = [f"salt-of-{place}-g" for place in range(40)]
        modules = {salt: marked(request.module, salt) for salt in salts}
        with ThreadPoolExecutor(3) as pool:
            found = pool.map(lambda salt: xla.scheduled(modules[salt], salt, options), salts)
            assert all(salt.encode() in proto for salt, proto in zip(salts, found, strict=True))
        return xla.compile(options=options)

    acting(mesh, act)
