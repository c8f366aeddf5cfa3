"""From a recipe to a train step and its arguments."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from tests.generator.layer import Layer
from tests.generator.parts import PARTS
from tests.generator.recipe import Recipe

FAR = ("w1", "w2", "w3", "b1", "b2")
"""Weights that are spread over the experts' devices."""


@dataclass(frozen=True)
class Build:
    """A recipe's step.

    Attributes:
        recipe: what was chosen.
        dtype: of weights and tokens.
        data: seed of their values.
    """

    recipe: Recipe
    dtype: Any
    data: int = 0

    def part(self, name: str) -> Any:
        return PARTS[name][self.recipe[name]]

    @cached_property
    def spread(self) -> Any:
        return self.part("mesh")

    @cached_property
    def mesh(self) -> Any:
        return self.spread.mesh()

    @cached_property
    def size(self) -> Any:
        return replace(self.part("size"), choices=min(self.part("k"), self.count))

    @cached_property
    def count(self) -> int:
        return self.part("size").local * self.spread.peers

    # ------------------------------------------------------------------ arguments

    def _layer_shapes(self) -> dict[str, tuple[int, ...]]:
        d, h, e = self.size.model, self.size.hidden, self.count
        return {"wg": (d, e), "bias": (e,), "w1": (e, d, h), "w2": (e, h, d), "w3": (e, d, h),
                "b1": (e, h), "b2": (e, d), "mix": (e, e), "dense": (d, d), "bias_d": (d,),
                "qkv": (3, d, d)}  # fmt: skip

    def specs(self, tree: Any) -> Any:
        """Return how the leaves of parameters, or of an optimizer's state, are spread."""
        shapes = self._layer_shapes()

        def spec(path: Any, leaf: Any) -> P:
            key = getattr(path[-1], "key", None) if path else None
            return P(self.spread.experts) if key in FAR and leaf.ndim == len(shapes[key]) else P()

        return jax.tree.map_with_path(spec, tree)

    @cached_property
    def _params(self) -> list[dict[str, np.ndarray]]:
        random = np.random.default_rng(self.data)
        scale = {"wg": 1.0, "bias": 0.5}
        return [{k: random.normal(size=s) * scale.get(k, 0.4)
                 for k, s in self._layer_shapes().items()} for _ in range(self.part("layers")[0])]  # fmt: skip

    def arguments(self) -> tuple[Any, Any]:
        """Return state and tokens, new ones every time."""
        dtype = self.dtype
        params = jax.tree.map(lambda v: jnp.asarray(v, dtype), self._params)
        state = (params, self.part("optimizer").init(params))

        def put(leaf: Any, spec: P) -> Any:
            return jax.device_put(leaf, NamedSharding(self.mesh, spec))

        micro = self.part("accumulate")[0]
        shape = (self.spread.devices * self.size.batch, self.size.seq, self.size.model)
        x = np.random.default_rng(self.data + 1).normal(size=(max(micro, 1), *shape))
        x = jnp.asarray(x if micro else x[0], dtype)
        return jax.tree.map(put, state, self.specs(state)), put(x, self._tokens(micro))

    def _tokens(self, micro: int) -> P:
        return P(None, self.spread.axes) if micro else P(self.spread.axes)

    # ------------------------------------------------------------------ layers

    def _layer(self, **options: Any) -> Layer:
        there = partial(self.part("there"), spread=self.spread)
        back = partial(self.part("back"), spread=self.spread)
        layer = Layer(self.recipe.names, self.size, self.count, self.spread.peers, there, back)
        return replace(layer, **options)

    def _constrained(self, x: Any, *spec: Any) -> Any:
        return lax.with_sharding_constraint(x, NamedSharding(self.mesh, P(*spec)))

    def _auto_layer(self) -> Layer:
        """Devices are a dim of its own; exchanges turn it."""
        spread, groups = self.spread, self.spread.devices
        far = spread.experts, spread.others or None
        if self.recipe["back"] == "back_over_turned_axes":
            far = spread.experts[::-1], None

        def there(v: Any) -> Any:
            v = self._constrained(v, spread.axes)
            v = self._constrained(v.transpose(1, 0, 2, 3), *far)
            return v.reshape(v.shape[0], -1, v.shape[-1])

        def back(v: Any) -> Any:
            v = v.reshape(v.shape[0], groups, -1, v.shape[-1])
            v = self._constrained(v, spread.experts, spread.others or None)
            return self._constrained(v.transpose(1, 0, 2, 3), spread.axes)

        def each(f: Callable[..., Any]) -> Callable[..., Any]:
            return lambda p, *rest: jax.vmap(f, (None, *[0] * len(rest)))(p, *rest)

        return self._layer(there=there, back=back, each=each, peers=groups)

    def _moe(self, p: Any, x: Any) -> Any:
        """One layer on tokens `[B, S, D]`, spread as the recipe says."""
        kind = self.recipe["spread"]
        if kind == "auto":
            y, auxiliary, metrics = self._auto_layer()(
                p, x.reshape(self.spread.devices, -1, x.shape[-1])
            )
            return y.reshape(x.shape), auxiliary, metrics
        if kind not in ("per_layer", "partial"):
            y, auxiliary, metrics = self._layer()(p, x.reshape(-1, x.shape[-1]))
            return y.reshape(x.shape), auxiliary, metrics
        axes = self.spread.axes if kind == "per_layer" else self.spread.experts

        def inside(p: Any, x: Any) -> Any:
            y, auxiliary, metrics = self._layer()(p, x.reshape(-1, x.shape[-1]))
            return y.reshape(x.shape), auxiliary[None], jax.tree.map(lambda m: m[None], metrics)

        y, auxiliary, metrics = jax.shard_map(
            inside, mesh=self.mesh, in_specs=(self.specs(p), P(axes)), out_specs=P(axes),
            axis_names=set(axes), check_vma=False,
        )(p, x)  # fmt: skip
        return y, jnp.mean(auxiliary), metrics

    def _block(self, p: Any, x: Any) -> Any:
        x = self.part("across")(p, x).astype(x.dtype)
        x = self.part("dense")(p, x).astype(x.dtype)
        y, auxiliary, metrics = self._moe(p, x)
        return self.part("residual")(x, y).astype(x.dtype), auxiliary, metrics

    # ------------------------------------------------------------------ the step

    def _loss(self, params: Any, x: Any) -> Any:
        nest = self.part("nest")
        block = self.part("remat")(nest.get("layer", lambda f: f)(self._block))
        y, auxiliary, metrics = self.part("layers")[1](block, params, x)
        loss = nest.get("loss", lambda f: f)(self.part("loss"))(y)
        return loss + 0.01 * auxiliary, (y, metrics)

    def _local_loss(self, params: Any, x: Any) -> Any:
        """What a shard_map around the loss has inside."""
        loss, (y, metrics) = self._loss(params, x)
        metrics = jax.tree.map(lambda m: m[None], metrics)
        return lax.pmean(loss, self.spread.axes), (y, metrics)

    def _update(self, state: Any, grads: Any) -> Any:
        params, moments = state
        updates, moments = self.part("optimizer").update(grads, moments, params)
        return jax.tree.map(lambda p, u: p + u.astype(p.dtype), params, updates), moments

    def _global_step(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        grad = jax.value_and_grad(loss, has_aux=True)

        def step(state: Any, x: Any) -> Any:
            (value, rest), grads = self.part("accumulate")[1](grad, state[0], x)
            return self._update(state, grads), {"loss": value, "rest": rest, "grads": grads}

        return step

    def _manual_step(self, state: Any, x: Any) -> Any:
        axes, sync = self.spread.axes, self.part("sync")
        is_checked = self.recipe["spread"] == "manual_checked"

        def body(state: Any, x: Any) -> Any:
            grad = jax.value_and_grad(
                self._loss if not is_checked else self._local_loss, has_aux=True
            )
            (value, rest), grads = self.part("accumulate")[1](grad, state[0], x)
            if not is_checked:
                rest = jax.tree.map(lambda m: m[None], rest)
                value = lax.pmean(value, axes)
                if sync is not None:
                    grads = jax.tree.map_with_path(
                        lambda path, g: self._synced(sync, path[-1].key, g), grads
                    )
            new = self._update(state, grads)
            return new, {"loss": value, "rest": rest,
                         "grads": grads if is_checked else jax.tree.map(lambda g: g[None], grads)}  # fmt: skip

        out = self.specs(state)
        grads = self.specs(state[0]) if is_checked else P(axes)
        rest = P(axes)
        if is_checked and self.part("accumulate")[0]:
            rest = self._micro_rest()
        return jax.shard_map(
            body, mesh=self.mesh, in_specs=(out, self._tokens(x.ndim == 4)),
            out_specs=(out, {"loss": P(), "rest": rest, "grads": grads}), check_vma=is_checked,
        )(state, x)  # fmt: skip

    def _micro_rest(self) -> P:
        return (
            P(None, self.spread.axes)
            if self.recipe["accumulate"].startswith("scan")
            else P(self.spread.axes)
        )

    def _synced(self, sync: Any, key: str, g: Any) -> Any:
        over = self.spread.others if key in FAR else self.spread.axes
        return sync(g, over) if over else g

    @cached_property
    def step(self) -> Callable[..., Any]:
        kind = self.recipe["spread"]
        if kind.startswith("manual"):
            return self._manual_step
        if kind == "loss":

            def loss(params: Any, x: Any) -> Any:
                spec = P(self.spread.axes)
                return jax.shard_map(
                    self._local_loss, mesh=self.mesh, in_specs=(self.specs(params), spec),
                    out_specs=(P(), spec), check_vma=False,
                )(params, x)  # fmt: skip

            return self._global_step(loss)
        return self._global_step(self._loss)
