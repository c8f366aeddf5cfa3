"""Eight virtual CPU devices for every test, and no GPU even where there is one."""

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
