"""Puts what XLA's partitioner made of a step back into the step, so that it can be cut.

`put_back.py` does it and has the contract; `from_hlo.py` mends what the conversion to StableHLO
loses, `digest.py` and `fold.py` check that nothing else was, `shardings.py` reads how arguments are
spread, `tiled_exchanges.py` writes all-to-alls as JAX does. What is not proved the same is refused.

Imports `ir` and `errors` alone.

Terms:
    step: the module as it was lowered, in global shapes.
    program: what the partitioner made of it, in the shapes of one device.
    digest: equal for programs that compute the same, op for op.
"""
