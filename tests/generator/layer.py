"""One MoE layer of a recipe: the tokens of a device, or of every group, to answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax.numpy as jnp

from tests.generator.choices import COLLIDING
from tests.generator.combine import AS_SENT, pairs
from tests.generator.counters import EXACT
from tests.generator.parts import PARTS
from tests.generator.sizes import Size

I32 = jnp.int32


@dataclass(frozen=True)
class Layer:
    """A layer's code.

    Attributes:
        chosen: a name for every part.
        size: how large it is.
        count: experts in all.
        peers: devices that share them.
        there, back: exchanges of a table.
        each: maps a function of weights and one device's tokens over all that are here.
    """

    chosen: Mapping[str, str]
    size: Size
    count: int
    peers: int
    there: Callable[[Any], Any]
    back: Callable[[Any], Any]
    each: Callable[..., Any] = lambda f: f

    def part(self, name: str) -> Any:
        return PARTS[name][self.chosen[name]]

    def __call__(self, p: Any, x: Any) -> tuple[Any, Any, Any]:
        """Return answers like x `[..., T, D]`, the router's loss, and metrics."""
        (sent, aside), memory = self.each(self._send)(p, x)
        rows = self.there(sent)
        if aside is not None:
            rows = rows * self._factor(self.there(aside)[..., :1]).astype(rows.dtype)
        made = self._work(p, self._unpacked(rows))
        answers = self.back(made)
        y, auxiliary, metrics = self.each(self._answer)(p, answers, memory)
        watched = self.part("watch")(sent, rows, made, answers)
        return y, jnp.mean(auxiliary) + watched.astype(auxiliary.dtype), metrics

    def _factor(self, came: Any) -> Any:
        """Return what rows are multiplied with: the weights that came, or one by their names."""
        return came if self.chosen["weigh"] == "sent_aside" else 1 + came % 3

    def _unpacked(self, rows: Any) -> Any:
        """Take the weight that came as one more feature."""
        return rows[..., :-1] * rows[..., -1:] if self.chosen["weigh"] == "beside" else rows

    def _send(self, p: Any, x: Any) -> Any:
        size, count = self.size, self.count
        scores = self.part("scores")(p, x)
        chosen, weight = self.part("choices")(scores, size.choices)
        rank = self.part("priority")(
            partial(self.part("counter"), count=count), chosen, weight
        ).astype(I32)
        place = self.part("place")(chosen, rank, count, size.slots)
        place = self.part("turn")(place)
        if not self._is_distinct():
            place = replace(place, is_distinct=False)
        rows = jnp.broadcast_to(x[:, None], (*chosen.shape, x.shape[-1]))
        if self.chosen["weigh"] == "before":
            rows = rows * weight[..., None].astype(rows.dtype)
        if self.chosen["weigh"] == "beside":
            rows = jnp.concatenate([rows, weight[..., None].astype(rows.dtype)], -1)
        sent = self.part("dispatch")(rows, place, count, size.slots)
        aside = None
        if self.chosen["weigh"] in ("sent_aside", "named_aside"):
            named = jnp.arange(chosen.size, dtype=I32).reshape(chosen.shape)
            told = weight.astype(rows.dtype) if self.chosen["weigh"] == "sent_aside" else named
            aside = self.part("dispatch")(
                jnp.repeat(told[..., None], 2, -1), place, count, size.slots
            )
        return (sent, aside), (scores, chosen, weight, rank, place)

    def _is_distinct(self) -> bool:
        """Whether no two choices share a row, so that rows may be set, not added."""
        return (
            self.chosen["choices"] not in COLLIDING and self.chosen["counter"] in EXACT
            and (self.chosen["priority"] != "choices_apart" or self.size.choices == 1)
        )  # fmt: skip

    def _work(self, p: Any, rows: Any) -> Any:
        spot = self.chosen["spot"]

        def at(name: str) -> Callable[[Any], Any]:
            is_here = name == spot
            return lambda h: self.part("mixer")(h, p, self.peers) if is_here else h

        rows = at("arrival")(rows)
        return at("answer")(self.part("experts")(p, rows, at("hidden")).astype(rows.dtype))

    def _answer(self, p: Any, out: Any, memory: Any) -> Any:
        scores, chosen, weight, rank, place = memory
        share = (
            weight if self.chosen["weigh"] in ("after", "named_aside") else jnp.ones_like(weight)
        )
        combine = self.part("combine") or AS_SENT.get(self.chosen["dispatch"], pairs)
        y = combine(out, place, share)
        metrics = self.part("metrics")(scores, chosen, rank, place)
        if not isinstance(place.extra, int):
            metrics = metrics | {"extra": place.extra}
        return y, self.part("auxiliary")(scores, chosen), metrics
