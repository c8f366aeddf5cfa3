"""The only files that know JAX's insides and XLA's options.

How a step is caught while jit compiles it, how a compiled one is held at its first call, callbacks
into XLA's pipeline, XLA's partitioner by itself, and what a backend can do. Every name that JAX
does not promise is named here alone, and has a test in `tests/contract`.

May import `errors` and `hlo_passes`; nothing else of the library.

Terms:
    seam: a place in JAX where a function of ours stands for one of JAX's, for one compile.
    stage: a point in XLA's pipeline: behind its partitioner, behind its scheduler.
    backend: XLA for one kind of device, with devices or to compile for only.
"""
