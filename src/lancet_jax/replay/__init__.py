"""Runs a step's StableHLO in its own order on CPU processes, exchanges beside compute.

XLA:CPU runs ops by dataflow: whatever order a plan gives them, it waits for exchanges where it
likes. A replay does what a GPU does: compute in text order on one thread, exchanges in order of
issue on another, each waiting for what it reads. So a plan's overlap can be measured in real
seconds, without a GPU, over a real link.
"""

from lancet_jax.errors import PeerError
from lancet_jax.replay.link import Echo, Link, SocketLink
from lancet_jax.replay.player import Player, Times
from lancet_jax.replay.predict import predict
from lancet_jax.replay.score import Score, score_of

__all__ = [
    "Echo", "Link", "PeerError", "Player", "Score", "SocketLink", "Times", "predict", "score_of",
]  # fmt: skip
