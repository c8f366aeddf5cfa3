"""Exchanges of StableHLO that are not one op: starts and dones of JAX's own, regions, sends."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from hlo_passes.cost.roofline import TargetCosts
from hlo_passes.cost.target import parse_target
from hlo_passes.ir.files import parse
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.schedule.simulate import simulate
from hlo_passes.verify import verify_exchange_pairs

COSTS = TargetCosts(parse_target("h100:1x8"))
EVERYBODY = (tuple(range(8)),)
X = "tensor<1024x512xf32>"
FUTURE = f"!stablehlo.future<{X}>"
HEAD = f"""module @m attributes {{mhlo.num_partitions = 8 : i32, mhlo.num_replicas = 1 : i32}} {{
func.func @main(%x: {X}, %y: {X}) -> {X} {{"""
GROUPS = (
    "replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, "
    "channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>"
)
SWAP = f"""<{{split_dimension = 0 : i64, concat_dimension = 0 : i64, split_count = 8 : i64, {GROUPS}}}>"""


def graph_of(*lines):
    graph = Module.parse("\n".join([HEAD, *lines, "}", "}"])).snapshot()
    verify_exchange_pairs(graph)
    return graph


def exchanges(graph):
    return [op for op in graph.ops if op.collective]


def hidden(graph):
    timeline = simulate(graph, COSTS.for_graph(graph))
    return timeline.exchange_us - timeline.exposed_us


SIZE = 1024 * 512 * 4
RING = tuple((i, (i + 1) % 8) for i in range(8))


@pytest.mark.parametrize("form", ["stablehlo", "hlo"])
def test_what_jax_starts_itself_is_an_exchange(form):
    mesh = jax.make_mesh((8,), ("ep",), axis_types=(jax.sharding.AxisType.Auto,))

    def body(x, w):
        flight = jax.lax.psum_scatter_start(x, "ep", tiled=True)
        return jnp.tanh(x @ w).sum() + flight.done().sum()

    step = jax.shard_map(body, mesh=mesh, in_specs=(P("ep"), P()), out_specs=P(), check_vma=False)
    lowered = jax.jit(step).lower(
        jax.ShapeDtypeStruct((8 * 1024, 512), jnp.float32),
        jax.ShapeDtypeStruct((512, 512), jnp.float32),
    )
    if form == "stablehlo":
        graph = Module.parse(lowered.as_text()).snapshot()
    else:
        whole = parse(lowered.as_text("hlo").encode(), "m").snapshot()
        (graph,) = [inside for inside, _ in whole.walk() if exchanges(inside)]
    verify_exchange_pairs(graph)
    (op,) = exchanges(graph)
    found = op.collective
    assert (found.kind, found.groups, found.bytes) == ("reduce_scatter", EVERYBODY, SIZE)
    assert op.kind == "reduce_scatter_start"
    assert graph.done_of[op.id] > op.id


ALL = "\\22replica_groups\\22: [[0, 1, 2, 3, 4, 5, 6, 7]]"
ROUND = "\\22permutation\\22: " + str([list(pair) for pair in RING])


@pytest.mark.parametrize(
    ("kind", "config", "groups", "results"),
    [
        ("all_reduce", ALL, EVERYBODY, 1024),
        ("all_gather", ALL + ", \\22all_gather_dimension\\22: 0", EVERYBODY, 8192),
        ("all_to_all", ALL + ", \\22split_dimension\\22: 0", EVERYBODY, 1024),
        ("collective_permute", ROUND, RING, 1024),
    ],
)
@pytest.mark.parametrize("barrier", [False, True])
def test_every_start_of_jax_is_an_exchange(kind, config, groups, results, barrier):
    made = f"tensor<{results}x512xf32>"
    name = kind.replace("_", "-")
    graph = graph_of(
        f"""%f = stablehlo.custom_call @"{name}-start"(%x) {{mhlo.frontend_attributes = {{
          async_collective_config = "{{{config}, \\22channel_id\\22: 1}}"}}}} : ({X}) -> {made}""",
        f"""%t = stablehlo.dot_general %y, %y, contracting_dims = [1] x [1] :
          ({X}, {X}) -> tensor<1024x1024xf32>""",
        f"%b:2 = stablehlo.optimization_barrier %t, %f : tensor<1024x1024xf32>, {made}",
        f"""%d = stablehlo.custom_call @"{name}-done"({"%b#1" if barrier else "%f"}) :
          ({made}) -> {made}""",
        f"%s = stablehlo.slice %d [0:1024, 0:512] : ({made}) -> {X}",
        f"return %s : {X}",
    )
    (op,) = exchanges(graph)
    size = results * 512 * 4
    assert (op.collective.kind, op.collective.groups, op.collective.bytes) == (kind, groups, size)
    assert hidden(graph) > 0


def test_an_async_start_is_what_its_region_exchanges():
    graph = graph_of(
        f"""%f = "stablehlo.async_start"(%x) ({{
          ^bb0(%a: {X}):
            %r = "stablehlo.all_to_all"(%a) {SWAP} : ({X}) -> {X}
            stablehlo.return %r : {X}
          }}) : ({X}) -> {FUTURE}""",
        f"%t = stablehlo.dot_general %y, %y, contracting_dims = [1] x [1] : "
        f"({X}, {X}) -> tensor<1024x1024xf32>",
        f"""%d = "stablehlo.async_done"(%f) : ({FUTURE}) -> {X}""",
        f"return %d : {X}",
    )  # fmt: skip
    (op,) = exchanges(graph)
    assert (op.kind, op.collective.kind, op.collective.bytes) == (
        "all_to_all_start", "all_to_all", SIZE,
    )  # fmt: skip
    assert hidden(graph) > 0


def test_who_receives_waits_for_the_send():
    token = "!stablehlo.token"
    for kind, is_host in ((1, "false"), (2, "true")):
        said = [
            f"<{{channel_handle = #stablehlo.channel_handle<handle = 1, type = {way}>, "
            f"is_host_transfer = {is_host}}}>"
            for way in (kind, 1 if kind == 1 else 3)
        ]
        graph = graph_of(
            f"%n = stablehlo.create_token : {token}",
            f"""%s = "stablehlo.send"(%x, %n) {said[0]} : ({X}, {token}) -> {token}""",
            f"""%r:2 = "stablehlo.recv"(%s) {said[1]} : ({token}) -> ({X}, {token})""",
            f"return %r#0 : {X}",
        )  # fmt: skip
        found = [(op.kind, op.collective.kind, op.collective.bytes) for op in exchanges(graph)]
        assert found == ([] if is_host == "true" else [("send", "collective_permute", SIZE)])


@pytest.mark.parametrize(("flag", "devices"), [("", 8), ("use_global_device_ids, ", 1)])
def test_a_sum_over_a_replica_is_over_all_its_partitions(flag, devices):
    graph = graph_of(
        f"""%r = "stablehlo.all_reduce"(%x) <{{{flag}replica_groups = dense<0> : tensor<1x1xi64>,
          channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>}}> ({{
          ^bb0(%a: tensor<f32>, %b: tensor<f32>):
            %s = stablehlo.add %a, %b : tensor<f32>
            stablehlo.return %s : tensor<f32>
          }}) : ({X}) -> {X}""",
        f"return %r : {X}",
    )
    (op,) = exchanges(graph)
    assert op.collective.group_size == devices
