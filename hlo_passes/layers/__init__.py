"""What a MoE layer is, found by dataflow and not by names; nothing here edits a module.

`capacity/` has layers with a fixed number of rows an expert, `masks/` those that move tokens by
products with one-hot masks, `dropless/` those whose experts take every token. Each says which ops a
cut replaces and why an exchange is none of its own.

Imports `cut`, `proofs` and `ir`, of the packages beside it.

Terms:
    put, dispatch: tokens are written into a buffer that an exchange sends away.
    fetch, combine: tokens are read from a buffer that an exchange brought.
    row: the place of one token in such a buffer; which one, its indices say.
    came: of a value or of rows: what an exchange has brought.
    routing: the choices of experts that the tables of a dropless layer are counted from.
"""
