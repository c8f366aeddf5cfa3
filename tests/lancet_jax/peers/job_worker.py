"""One process of a job: compiles and runs a step with exchanges, and prints what came of it.

    python -m tests.lancet_jax.peers.job_worker RANK PORT '{"size": 2, ...}'

Every key of the options may be a list with one entry for each rank.
"""

import dataclasses
import json
import os
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import lancet_jax
from hlo_passes.schedule_dw import ScheduleDw
from hlo_passes.split_pass import SplitPass
from lancet_jax import nn
from lancet_jax.audit import first_call
from lancet_jax.audit.leaves import Deviation, is_key
from lancet_jax.compile import before_xla
from tests.lancet_jax.audit import audit_steps


def toy(mesh):
    """Return a step with two exchanges and a choice of order, and its arguments."""

    def inside(x, w):
        def loss(w):
            y = lax.all_to_all(x @ w, "expert", 0, 0, tiled=True)
            y = jnp.tanh(y @ w)
            return jnp.sum(lax.all_to_all(y, "expert", 0, 0, tiled=True) ** 2)

        return w - 0.1 * lax.pmean(jax.grad(loss)(w), "expert")

    step = jax.shard_map(
        inside, mesh=mesh, in_specs=(P("expert"), P()), out_specs=P(), check_vma=False
    )
    rng = np.random.default_rng(0)
    shapes = (((8 * mesh.size, 16), P("expert")), ((16, 16), P()))
    return step, [put(rng.normal(size=s).astype(np.float32), mesh, spec) for s, spec in shapes]


def put(array, mesh, spec):
    sharding = NamedSharding(mesh, spec)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def model(mesh):
    """Return a train step of a small MoE model, and its arguments."""
    config = dataclasses.replace(nn.preset("tiny"), layers=1)
    optimizer = nn.sgd_momentum()
    state = nn.init_state(config, mesh, optimizer, 0)
    tokens = next(iter(nn.batches(nn.sample_text(), *nn.batch_shape(config, mesh), 0)))
    return nn.make_train_step(config, mesh, optimizer), [state, tokens]


def audited(mesh):
    """Return a small step that is cut, and its arguments."""
    return audit_steps.stepped(), audit_steps.arguments()


def plant(fault):
    """Make this process decide otherwise than the others, or not at all."""
    if fault == "order":
        choose = ScheduleDw.choose
        ScheduleDw.choose = lambda self, problem, contention: (
            "stock", None) if problem.exchanges else choose(self, problem, contention)  # fmt: skip
    elif fault == "no planning":
        ScheduleDw.choose = SplitPass.plan = lambda *args: sys.exit("planned after all")
    elif fault == "error":
        ScheduleDw.choose = SplitPass.plan = lambda *args: 1 / 0
    elif fault == "parts":
        plan = SplitPass.plan
        SplitPass.plan = lambda self, *args: plan(dataclasses.replace(self, k=4), *args)
    elif fault == "wrong":
        before_xla.candidates_of = audit_steps.adding(before_xla.candidates_of)
    elif fault == "sees another":
        compared, planted = first_call.compared, iter([Deviation(False, 1.0)])

        def otherwise(*args):
            first, *rest = compared(*args)
            return [next(planted, first), *rest]

        first_call.compared = otherwise
    elif fault == "late":
        time.sleep(3)
    elif fault == "dead":
        os._exit(3)
    elif fault == "silent":
        time.sleep(30)


def main():
    rank, port, options = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    mine = {k: v[rank] if isinstance(v, list) else v for k, v in options.items()}
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if mine.get("cache"):
        jax.config.update("jax_compilation_cache_dir", mine["cache"])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    jax.distributed.initialize(
        f"127.0.0.1:{port}", mine["size"], rank, heartbeat_timeout_seconds=10,
        shutdown_timeout_seconds=5,
    )  # fmt: skip
    hits = []
    jax.monitoring.register_event_listener(
        lambda event, **_: hits.append(event) if "cache_hits" in event else None
    )
    mesh = Mesh(np.array(jax.devices()), ("expert",))
    step, arguments = {"toy": toy, "model": model, "audited": audited}[mine.get("step", "toy")](
        mesh
    )
    expected = jax.device_get(local(jax.jit(step)(*arguments)))
    plant(mine.get("fault"))
    ours = lancet_jax.jit(
        step,
        pipeline=mine.get("pipeline", "schedule-dw{memory-slack=10}"),
        target=mine.get("target", f"v100:1x{mine['size']}"),
        plan_on=mine.get("plan_on", "every"),
        peer_timeout_s=mine.get("timeout", 60),
        on_unsupported=mine.get("on_unsupported", "raise"),
        audit=mine.get("audit", "first"),
    )
    hits.clear()
    if mine.get("compile_twice"):
        ours.lower(*arguments).compile()
    since = time.monotonic()
    try:
        got = jax.device_get(local(ours(*arguments)))
    except Exception as error:
        said = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(said | {"seconds": time.monotonic() - since}), flush=True)
        raise
    same = all(np.allclose(a, b, atol=1e-5) for a, b in zip(expected, got, strict=True))
    outcome = ours.outcomes[-1]
    print(json.dumps({
        "same": same, "hits": len(hits), "plan": outcome.plan and outcome.plan.hash,
        "moves": outcome.plan and len(outcome.plan.moves), "cuts": len(outcome.cuts),
        "error": str(outcome.error or ""), "notes": outcome.notes,
    }), flush=True)  # fmt: skip
    jax.distributed.shutdown()


def local(tree):
    """Return what lies on this process's device, keys aside."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if not is_key(leaf)]
    return [leaf.addressable_shards[0].data for leaf in leaves]


if __name__ == "__main__":
    main()
