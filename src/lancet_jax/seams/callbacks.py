"""Callbacks into XLA's pipeline, for the time of one compile."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax.extend.xla as jex

names = iter(range(10**9))


@contextmanager
def calling(callback: Callable[[bytes], bytes | None], stage: Any, platform: str) -> Iterator[None]:
    """Let XLA call back at a stage of its pipeline for the time of one compile.

    XLA calls it for every module that the process compiles meanwhile, helpers and other threads'
    modules included: the callback has to recognise its own. Each registration has a name of its
    own, so that compiles in several threads do not clear each other's.
    """
    name = f"lancet-jax-{next(names)}"
    jex.register_hlo_module_transformation(callback, name=name, stage=stage, platforms=platform)
    try:
        yield
    finally:
        jex.clear_hlo_module_transformation(name, stage=stage, platforms=platform)
