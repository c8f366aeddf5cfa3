"""Byte-level training data from any text, and a text that every Python has."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np


def read_text(path: str | Path) -> np.ndarray:
    """The bytes of a file as tokens, uint8 `[N]`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is empty.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no text file {str(path)!r}")
    tokens = np.frombuffer(path.read_bytes(), np.uint8)
    if not tokens.size:
        raise ValueError(f"the text file {str(path)!r} is empty")
    return tokens


def sample_text() -> np.ndarray:
    """About 500 kB of English as tokens, uint8 `[N]`: Python's own language reference."""
    # Imported here: half a megabyte that only this function needs.
    from pydoc_data.topics import topics

    return np.frombuffer("\n".join(topics[name] for name in sorted(topics)).encode(), np.uint8)


def batches(
    tokens: np.ndarray, batch: int, seq: int, seed: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless random windows of a text; the same arguments give the same windows.

    Args:
        tokens: Token ids, integers `[N]`.
        batch: Windows `B` in a batch.
        seq: Tokens `S` in a window.
        seed: Seed of the windows' places.

    Returns:
        An iterator of `(inputs, targets)`, int32 `[B, S]` each; targets are one token ahead.

    Raises:
        ValueError: If a number is not positive or the text is too short for one window.
    """
    if batch <= 0 or seq <= 0:
        raise ValueError(f"batch and seq must be positive, not {batch} and {seq}")
    if tokens.size <= seq:
        raise ValueError(f"a window of {seq} tokens needs a text of {seq + 1}, not {tokens.size}")
    return _windows(tokens, batch, seq, seed)


def _windows(
    tokens: np.ndarray, batch: int, seq: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(seed)
    while True:
        starts = random.integers(0, tokens.size - seq, size=batch)
        rows = tokens[starts[:, None] + np.arange(seq + 1)].astype(np.int32)
        yield rows[:, :-1], rows[:, 1:]
