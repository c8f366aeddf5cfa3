"""Deviceless GPU compiles; skipped only where the CUDA plugin is not installed."""

import pytest

from lancet_jax.seams import cuda


def pytest_collection_modifyitems(items):
    if cuda.cuda_plugin() is None:
        skip = pytest.mark.skip(reason="the CUDA plugin is not installed")
        for item in items:
            if "/aot/" in str(item.path):
                item.add_marker(skip)
