"""The garbage collector, while a plan is made."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Hold the collector back: planning makes many objects, hardly a cycle among them, and every
    collection would walk through all that JAX keeps besides. It takes a fifth of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
