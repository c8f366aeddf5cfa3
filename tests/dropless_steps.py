"""A dropless layer that is none of `lancet_jax.nn`'s, and ways to spoil it.

Places are looked up in prefix sums that begin with a zero; receivers say where rows are to be put,
by all-to-alls; the way back is JAX's own transpose of `ragged_all_to_all`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.layers.capacity.sites import find_sites
from hlo_passes.split.module import groups_of
from tests.steps import norm

AXIS = "ep"


@dataclass(frozen=True)
class Dropless:
    """One layer behind a norm, and its weights' gradients.

    Attributes:
        devices, tokens, choices, experts, model: sizes; tokens and experts of one device, and of
            all, respectively.
        expert: what is done to sorted rows, from weights, rows and the rows of every expert.
        spoil: changes the tables, by name, from what is known of all counts.
        room: rows of the buffer at the experts.
        keep: whether what came to the experts is returned as well.
        forward: whether gradients are left out.
        remat: whether the backward pass runs the layer once more.
        sort: whether rows are sorted by `argsort` and counted by `bincount`, not placed by counts.
        shift: what is added to the number of tokens up to each, to get its rank.
        keys, token: what is sorted by, of choices, and whose a row is, of the sort's order.
        axes: the mesh's other axes, behind the one of experts.
    """

    devices: int = 4
    tokens: int = 8
    choices: int = 2
    experts: int = 8
    model: int = 4
    expert: Callable[..., Any] | None = None
    spoil: Callable[[dict[str, Any], Any], dict[str, Any]] = lambda tables, counts: tables
    room: int | None = None
    keep: bool = False
    forward: bool = False
    remat: bool = False
    sort: bool = False
    shift: int = -1
    keys: Callable[[Any], Any] = lambda flat: flat
    token: Callable[[Any], Any] | None = None
    axes: tuple[tuple[str, int], ...] = ()

    def mesh(self) -> Mesh:
        sizes = {AXIS: self.devices, **dict(self.axes)}
        devices = np.array(jax.devices()[: int(np.prod(list(sizes.values())))])
        return Mesh(devices.reshape(tuple(sizes.values())), tuple(sizes))

    def arguments(self, mesh: Mesh, skew: float = 0.0) -> tuple[Any, Any]:
        """Weights, and tokens that all tend to one expert if there is skew."""
        random = np.random.default_rng(0)

        def array(spec, *shape):
            return jax.device_put(
                jnp.asarray(random.normal(size=shape), jnp.float32), NamedSharding(mesh, spec)
            )

        weights = {
            "router": array(P(), self.model, self.experts),
            "w1": array(P(AXIS), self.experts, self.model, 2 * self.model),
            "w2": array(P(AXIS), self.experts, 2 * self.model, self.model),
        }
        tilt = np.zeros((self.model, self.experts), np.float32)
        tilt[:, :2] = skew * np.arange(2, 0, -1)
        weights["router"] = weights["router"] + tilt
        rows = array(P(tuple(mesh.axis_names)), mesh.size * self.tokens, self.model)
        return weights, jnp.abs(rows) if skew else rows

    def step(self, mesh: Mesh) -> Callable[..., Any]:
        """Return a function of weights and tokens, to be jitted."""
        weights = {"router": P(), "w1": P(AXIS), "w2": P(AXIS)}
        rows = P(tuple(mesh.axis_names))

        def body(p, x):
            def loss(p, x):
                layer = jax.checkpoint(self._layer) if self.remat else self._layer
                answers, kept = layer(p, x)
                return jnp.sum(jnp.square(answers)), (answers, kept)

            if self.forward:
                return self._layer(p, x)[0]
            grads, (answers, kept) = jax.grad(loss, (0, 1), has_aux=True)(p, x)
            others = tuple(name for name, _ in self.axes)
            summed = lax.psum(grads[0], others) if others else grads[0]
            grads = (summed | {"router": lax.psum(summed["router"], AXIS)}, grads[1])
            return (*grads, answers, kept) if self.keep else (*grads, answers)

        out = rows if self.forward else (weights, rows, rows)
        return jax.shard_map(body, mesh=mesh, in_specs=(weights, rows),
                             out_specs=(*out, rows) if self.keep else out,
                             check_vma=False)  # fmt: skip

    def _layer(self, p, x):
        x = norm(x)
        weight, chosen = lax.top_k(jax.nn.softmax(x @ p["router"]), self.choices)
        flat, count = chosen.reshape(-1), self.tokens * self.choices
        if self.sort:
            order = jnp.argsort(self.keys(flat))
            place = jnp.argsort(order).reshape(chosen.shape)
            counts = jnp.bincount(flat, length=self.experts).astype(jnp.int32)
            first = jnp.cumsum(counts) - counts
            near = x[self.token(order) if self.token else order // self.choices]
        else:
            hot = (flat[:, None] == jnp.arange(self.experts)).astype(jnp.int32)
            rank = jnp.sum((jnp.cumsum(hot, 0) + self.shift) * hot, -1)
            counts = hot.sum(0)
            first = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(counts)[:-1]])
            place = first[flat] + rank
            repeated = jnp.broadcast_to(x[:, None], (*chosen.shape, self.model))
            near = jnp.zeros((count, self.model), x.dtype)
            near = near.at[place].set(repeated.reshape(count, -1), unique_indices=True)

        everyone = lax.all_gather(counts, AXIS)
        local = self.experts // self.devices
        mine = lax.dynamic_slice_in_dim(everyone, lax.axis_index(AXIS) * local, local, 1)
        by_expert = mine.T.reshape(-1)
        put = (jnp.cumsum(by_expert) - by_expert).reshape(local, self.devices).T.reshape(-1)
        got, sizes = mine.reshape(-1), mine.sum(0)
        tables = {"first": first, "counts": counts, "put": put, "got": got, "sizes": sizes}
        tables = self.spoil(tables, everyone)
        room = self.room or self.devices * count
        far = lax.ragged_all_to_all(
            near, jnp.zeros((room, self.model), x.dtype), tables["first"], tables["counts"],
            lax.all_to_all(tables["put"], AXIS, 0, 0, tiled=True), tables["got"], axis_name=AXIS,
        )  # fmt: skip
        done = (self.expert or mlp)(p, far, tables["sizes"])
        home = lax.ragged_all_to_all(
            done, jnp.zeros((count, self.model), x.dtype), tables["put"], tables["got"],
            lax.all_to_all(tables["first"], AXIS, 0, 0, tiled=True), tables["counts"],
            axis_name=AXIS,
        )  # fmt: skip
        answers = home.at[place].get(mode="promise_in_bounds", unique_indices=True)
        answers = answers.reshape(*chosen.shape, self.model)
        return jnp.sum(answers * weight[..., None], 1), far

    def module(self) -> Module:
        mesh = self.mesh()
        return Module.copy_of(jax.jit(self.step(mesh)).lower(*self.arguments(mesh)).compiler_ir())


def by_token(p, x, choices: int):
    """What a layer answers, without experts' devices: every expert sees every token."""
    tokens = norm(x)
    weight, chosen = lax.top_k(jax.nn.softmax(tokens @ p["router"]), choices)
    hidden = jax.nn.gelu(jnp.einsum("td,edh->teh", tokens, p["w1"]))
    answers = jnp.einsum("teh,ehd->ted", hidden, p["w2"])
    picked = jnp.take_along_axis(answers, chosen[..., None], 1)
    return jnp.sum(picked * weight[..., None], 1)


def mlp(p, rows, sizes):
    return lax.ragged_dot(jax.nn.gelu(lax.ragged_dot(rows, p["w1"], sizes)), p["w2"], sizes)


def read(module: Module):
    """Return the block of a module, its value numbers, and who exchanges."""
    graph, body = module.snapshot(), Body(module.body)
    return body, find_sites(body).numbers, groups_of(graph, graph.devices), graph.devices
