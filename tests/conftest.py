"""Eight virtual CPU devices for every test, and no GPU even where there is one.

LLVM does not optimize: programs run once here, and compiling them is most of a test's time. XLA's
own passes run as ever.
"""

import jax

pytest_plugins = ["tests.generator.tally"]

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_disable_most_optimizations", True)
