"""Builds the parts: edits a module as a plan of cuts says.

`module.py` applies a plan, `block.py` cuts one block, `values.py` knows which values are there in
parts, `rows.py` sends the rows of one part, `row_batches.py` and `dropless_parts.py` run experts
for them, `loops.py` unrolls, `unmask.py` makes rows of one-hot products. `forward_ranges.py` and
`known.py` say what may be cut, for those who choose.

Imports `layers`, `cut`, `proofs`, `cost`, `plans`, `ir` and `errors`, and of `schedule` the paper's
ranges and prices.

Terms:
    region, stretch: the ops of a block that are cut together.
    part: one of k; contiguous tokens.
    near, far: of rows: on the device whose tokens they are; on the peers that they go to.
    came, arrival: rows of one part that an exchange has brought.
    shipment: which rows of a part go where.
    batch: as many rows of every expert as a balanced routing brings it.
"""
