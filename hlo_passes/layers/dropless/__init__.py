"""Layers whose experts take every token: counted, sorted, sent by ragged exchanges.

`routing.py` finds the counts, `tables.py` what follows from them on every device, `exchanges.py`
what the ragged exchanges do, `orders.py` and `sorted_rows.py` how rows are sorted, `expert_rows.py`
that experts treat every row alone, `layers.py` puts it together.

Imports `cut`, `proofs` and `ir`.

Terms:
    table: a small tensor of counts, or of sums of counts, different on every device.
    choice: a token and one of its experts; it has one row.
    own rows: the sorted ones on the device whose tokens they are, before and after the exchanges.
    there, back: the way of an exchange, to the experts or from them.
"""
