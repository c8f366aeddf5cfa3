"""Layers that move tokens by products with one-hot masks, as GShard and Switch do.

`products.py` finds them beside exchanges, `product_dims.py` sorts their dims by what they count,
`address.py` reads off which row a token has. `split/index_rows.py` makes rows of them.

Imports `proofs` and `ir`.

Terms:
    role: what a product does: dispatch, combine, or the gradient of a mask.
    address: per dim of the buffer that counts rows, the index that says where along it a row is.
    choice: one of the rows that one token has.
"""
