"""Decisions kept beside JAX's persistent compilation cache: a second start races nothing."""

from pathlib import Path

import jax
import msgspec

from hlo_passes.errors import InputError
from hlo_passes.files import write_atomically
from lancet_jax.peers.decided import Decided


def remember(decided: Decided, key: str) -> None:
    """Keep a decision beside JAX's persistent compilation cache, if there is one.

    Args:
        decided: what to keep.
        key: stands for module, options, target and versions.
    """
    place = _place(key)
    if place is not None and place.parent.is_dir():
        try:
            write_atomically(place, decided.to_bytes())
        except InputError:
            return  # a cache that cannot be written costs time, not a step


def recall(key: str) -> Decided | None:
    """Return what was decided when this very step was compiled before."""
    place = _place(key)
    try:
        return Decided.from_bytes(place.read_bytes()) if place is not None else None
    except (OSError, msgspec.MsgspecError):
        return None


def _place(key: str) -> Path | None:
    folder = jax.config.jax_compilation_cache_dir
    if not folder or "://" in folder:
        return None
    return Path(folder) / f"lancet-decided-{key}.json"
