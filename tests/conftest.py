"""Eight virtual CPU devices for every test, and no GPU even where there is one.

LLVM does not optimize: programs run once here, and compiling them is most of a test's time. XLA's
own passes run as ever. Tests of cut steps compare with plain jit themselves, so that first calls are
audited in `test_audit*` alone: that compiles every step once more.
"""

import jax
import pytest

from lancet_jax.compile.options import Options

pytest_plugins = ["tests.generator.tally"]

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True)
def audit_nowhere_else(request, monkeypatch):
    if not request.path.name.startswith("test_audit"):
        monkeypatch.setitem(Options.__init__.__kwdefaults__, "audit", False)
