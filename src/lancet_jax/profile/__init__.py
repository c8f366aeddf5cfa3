"""Steps by the clock: what the JAX profiler captured, as the timelines that plans use.

`events` reads a capture's modules and the events of every run, `capture` makes a module and a
timeline of the run of median length.

May import `seams`, `errors` and `hlo_passes`.

Terms:
    capture: what `jax.profiler.trace` wrote: an `.xplane.pb` file.
    run: one execution of one module on one device.
    launch: the events of one start of an op: kernels and copies.
    command buffer: ops that XLA launched at once, as a CUDA graph; they have no names.
"""
