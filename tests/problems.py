"""Random scheduling problems: shaped like a backward pass, or not shaped at all."""

import random
from dataclasses import dataclass, field

from hypothesis import strategies as st

from hlo_passes.facts.liveness import Buffers
from hlo_passes.schedule.problem import Lane, Problem


@dataclass
class Builder:
    """Collects ops in program order. Every op that takes time makes one buffer."""

    lane: list[Lane] = field(default_factory=list)
    us: list[float] = field(default_factory=list)
    preds: list[tuple[int, ...]] = field(default_factory=list)
    urgent: list[bool] = field(default_factory=list)
    blocking: set[int] = field(default_factory=set)
    sizes: list[int] = field(default_factory=list)
    makes: list[tuple[int, ...]] = field(default_factory=list)
    reads: list[tuple[int, ...]] = field(default_factory=list)
    scratch: list[int] = field(default_factory=list)
    holds: list[tuple[int, ...]] = field(default_factory=list)

    def op(
        self,
        lane: Lane,
        us: float,
        preds: tuple[int, ...] = (),
        *,
        urgent: bool = False,
        size: int | None = None,
        scratch: int = 0,
    ) -> int:
        """Add an op; `size` None means that it passes on its operands' buffers."""
        reads = tuple(sorted({b for p in preds for b in self.holds[p]}))
        made: tuple[int, ...] = ()
        if size is not None:
            made = (len(self.sizes),)
            self.sizes.append(size)
        self.lane.append(lane)
        self.us.append(us)
        self.preds.append(tuple(sorted(set(preds))))
        self.urgent.append(urgent)
        self.makes.append(made)
        self.reads.append(reads)
        self.scratch.append(scratch)
        self.holds.append(made or reads)
        return len(self.lane) - 1

    def compute(self, us: float, *preds: int, size: int = 1) -> int:
        """Add a compute op."""
        return self.op(Lane.COMPUTE, us, preds, size=size)

    def exchange(self, us: float, *preds: int, urgent: bool = True, size: int = 1) -> int:
        """Add the start of an exchange."""
        return self.op(Lane.EXCHANGE, us, preds, urgent=urgent, size=size)

    def done(self, start: int) -> int:
        """Add the done half of an exchange."""
        return self.op(Lane.COMPUTE, 0.0, (start,))

    def problem(self) -> Problem:
        """Freeze it."""
        buffers = Buffers(
            tuple(self.sizes), tuple(self.makes), tuple(self.reads), tuple(self.scratch)
        )
        return Problem(
            lane=tuple(self.lane),
            us=tuple(self.us),
            preds=tuple(self.preds),
            urgent=tuple(self.urgent),
            buffers=buffers,
            sources=("none",) * len(self.lane),
            blocking=frozenset(self.blocking),
        )


def backward_like(rng: random.Random, layers: int = 3) -> Problem:
    """A chain of dX with all-to-alls between, dW leaves, gradient sums and updates at the end."""
    b = Builder()
    grad = b.compute(rng.uniform(5, 30), size=rng.randint(1, 20))
    scale = rng.choice([0.5, 1.0, 2.0])
    updates: list[tuple[int, ...]] = []
    bucket: list[int] = []
    for layer in range(layers):
        dw = [b.compute(rng.uniform(3, 25), grad, size=rng.randint(1, 20))]
        dx = b.compute(rng.uniform(3, 25), grad, size=rng.randint(1, 20))
        if rng.random() < 0.75 or layer == 0:
            start = b.exchange(rng.uniform(5, 30) * scale, dx, size=rng.randint(1, 20))
            dx = b.done(start)
        grad = b.op(Lane.FREE, 0.0, (dx,))
        bucket += dw
        if rng.random() < 0.5 or layer == layers - 1:
            us = rng.uniform(5, 40) * scale
            start = b.exchange(us, *bucket, urgent=False, size=rng.randint(1, 20))
            updates.append((b.done(start),))
            bucket = []
        elif rng.random() < 0.3:  # an expert's gradient: nobody else has a share of it
            updates.append(tuple(bucket))
            bucket = []
    b.compute(rng.uniform(3, 25), grad, size=rng.randint(1, 20))
    for ready in updates:
        b.compute(rng.uniform(1, 5), *ready, size=rng.randint(1, 20))
    return b.problem()


def unstructured(rng: random.Random, count: int = 12, both: float = 0.05) -> Problem:
    """A random graph of about `count` ops that take time, on all lanes."""
    b = Builder()
    ends: list[int] = []
    for _ in range(count):
        few = min(len(ends), rng.choice([0, 1, 1, 2, 2, 3]))
        preds = tuple(rng.sample(ends[-8:], min(few, len(ends[-8:]))))
        size = rng.randint(1, 20)
        draw = rng.random()
        if draw < both:
            ends.append(b.op(Lane.BOTH, rng.uniform(5, 20), preds, size=size, scratch=size))
            if rng.random() < 0.5:
                b.blocking.add(ends[-1])
        elif draw < 0.4:
            start = b.exchange(rng.uniform(5, 40), *preds, urgent=rng.random() < 0.6, size=size)
            ends.append(b.done(start) if rng.random() < 0.8 else start)
        else:
            ends.append(b.compute(rng.uniform(2, 30), *preds, size=size))
        if rng.random() < 0.2:
            grows = rng.choice([None, size])
            ends.append(b.op(Lane.FREE, 0.0, (ends[-1],), size=grows))
    return b.problem()


def step_like(rng: random.Random, layers: int) -> Problem:
    """A forward pass of `layers` that a backward pass over the same layers follows."""
    b = Builder()
    saved: list[int] = []
    value = b.op(Lane.FREE, 0.0)
    for _ in range(layers):
        hidden = [b.compute(rng.uniform(1, 20), value, size=8) for _ in range(3)]
        start = b.exchange(rng.uniform(20, 60), b.compute(rng.uniform(1, 40), *hidden, size=8))
        value = b.compute(rng.uniform(5, 60), b.done(start), size=8)
        saved.append(value)
    grad = value
    updates: list[int] = []
    for kept in reversed(saved):
        dw = [b.compute(rng.uniform(5, 50), grad, kept, size=2) for _ in range(4)]
        start = b.exchange(rng.uniform(20, 60), b.compute(rng.uniform(5, 90), grad, size=8), size=8)
        grad = b.op(Lane.FREE, 0.0, (b.done(start),))
        summed = b.exchange(rng.uniform(10, 90), *dw[:2], urgent=False)
        updates += [b.done(summed), *dw[2:]]
    for ready in updates:
        b.compute(rng.uniform(1, 5), ready)
    return b.problem()


_RANDOM = st.randoms(use_true_random=False)

small_problems = st.one_of(
    st.builds(backward_like, _RANDOM, st.integers(1, 4)),
    st.builds(unstructured, _RANDOM, st.integers(1, 14)),
)
"""Up to about 14 ops that take time: what the oracle can judge."""

tiny_problems = st.one_of(
    st.builds(backward_like, _RANDOM, st.integers(1, 2)),
    st.builds(unstructured, _RANDOM, st.integers(1, 7)),
)
"""Few enough ops to try every order."""

problems = st.one_of(
    small_problems,
    st.builds(unstructured, _RANDOM, st.integers(15, 60)),
    st.builds(step_like, _RANDOM, st.integers(1, 6)),
)
"""Of any shape and of moderate size."""
