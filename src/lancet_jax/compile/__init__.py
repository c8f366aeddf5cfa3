"""One compile of a step, from what jit lowered to what is run: once down, once back.

`rewriter` takes a job through it: `before_xla` runs the passes on the step, partitioned first where
that is needed (`partition`), and offers `candidate`s; in the `tournament` XLA compiles each as far
as its scheduler, where `inside_xla` plans the order; `choice` takes the shortest that fits, `enact`
compiles it, `outcome` and `telling` say what became of it. `docs/thinking.md` draws this, and a
test holds the drawing against the imports.

May import `audit`, `report`, `peers`, `aot`, `profile`, `seams`, `errors` and all of `hlo_passes`.
Files here import only downward as well; the floors are in `pyproject.toml`.

Terms:
    job: what is known of one compile before anything is decided; frozen.
    candidate: a program that the step may be compiled to.
    rival: a candidate that a pass leaves open: XLA's own modules decide.
    uncut: the step as it came; what everything else is held against.
    kept: a decision beside JAX's compilation cache, so that a second start races nothing.
"""
