"""How the values of a program are cut into parts, without building any.

`states.py` has the states that a value can be in, `rules/` how one op hands them on, `spread.py`
follows them from seeds through a block. What has no rule stays whole.

Imports `ir` and `proofs`, of the packages beside it.

Terms:
    state: of a value: *whole*, *cut* along a dim, or a *sum* of parts.
    part: one of the k values that stand for one that is cut.
    spot: an operand or a result of an op.
    carry: what a prefix sum hands on from one part to the next.
"""
