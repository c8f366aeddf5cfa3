"""Callbacks into XLA's pipeline, for the time of one compile."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

import jax.extend.xla as jex

from hlo_passes.ir.hlo.stack_frames import ROUNDS

type Callback = Callable[[bytes], bytes | None]
"""Is given a serialized HloModuleProto; returns other bytes to go on with, or None."""

names = iter(range(10**9))

_DEPTH = 1 + ROUNDS
"""How many callbacks in turn one compile may have at a stage."""

_lock = Lock()
_active: dict[str, dict[int, tuple[Any, Sequence[Callback]]]] = {}
"""By platform: the stage and the callbacks of every compile that goes on."""


@contextmanager
def calling(callbacks: Sequence[Callback], stage: Any, platform: str) -> Iterator[None]:
    """Let XLA call back at a stage of its pipeline for the time of one compile.

    XLA calls for every module that the process compiles meanwhile, helpers and other threads'
    modules included: a callback has to recognise its own. XLA crashes if what it calls changes
    while it compiles. So what is registered stays the same from the first of several compiles that
    go on at once to the last, and asks whoever is active then.

    Args:
        callbacks: called in turn, each with what XLA took back of the one before.
        stage: where.
        platform: the plugin's name.
    """
    assert len(callbacks) <= _DEPTH
    mine = next(names)
    with _lock:
        active = _active.setdefault(platform, {})
        if not active:
            for at, place, name in _registrations():
                jex.register_hlo_module_transformation(
                    _asking(active, at, place), name=name, stage=at, platforms=platform
                )
        active[mine] = (stage, tuple(callbacks))
    try:
        yield
    finally:
        with _lock:
            del active[mine]
            if not active:
                for at, _, name in _registrations():
                    jex.clear_hlo_module_transformation(name, stage=at, platforms=platform)


def _registrations() -> Iterator[tuple[Any, int, str]]:
    """Yield stage, place among its callbacks and name of all that is registered."""
    yield jex.PipelineStage.PRE_SCHEDULER, 0, "lancet-jax-before"
    for place in range(_DEPTH):
        yield jex.PipelineStage.POST_SCHEDULER, place, f"lancet-jax-{place}"


def _asking(active: dict[int, tuple[Any, Sequence[Callback]]], stage: Any, place: int) -> Callback:
    """Return a callback that asks those of all compiles at one place; only one knows the module."""

    def ask(proto: bytes) -> bytes | None:
        for at, callbacks in tuple(active.values()):
            made = callbacks[place](proto) if at == stage and place < len(callbacks) else None
            if made is not None:
                return made
        return None

    return ask
