"""Says how long a replay takes, from the times of its pieces."""

from collections.abc import Sequence

from lancet_jax.replay.score import Launch, Score, Segment, Wait


def predict(
    score: Score,
    segments: Sequence[float],
    exchanges: Sequence[float],
    *,
    handling: float = 0.0,
    contention: float = 0.0,
) -> float:
    """Return the seconds of a step: two streams, each in order, waiting where the score does.

    Args:
        score: what is played.
        segments: seconds of every segment alone, in order.
        exchanges: seconds of every exchange alone, in order of issue.
        handling: seconds that compute stands still for every exchange, to hand it over.
        contention: share by which an exchange in flight slows compute beside it.
    """
    now = free = 0.0
    ends: list[float] = []
    place = 0
    for step in score.steps:
        if isinstance(step, Segment):
            beside = min(segments[place], max(0.0, free - now))
            now += segments[place] + contention * beside
            place += 1
        elif isinstance(step, Launch):
            free = max(now, free) + exchanges[len(ends)]
            ends.append(free)
        elif isinstance(step, Wait):
            now = max(now, ends[step.exchange]) + handling
    return max(now, free)
