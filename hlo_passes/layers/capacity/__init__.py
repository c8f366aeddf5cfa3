"""Layers whose experts have a fixed number of rows: scatter, exchange, experts, exchange, gather.

`sites.py` finds puts and fetches, `exchange_pairs.py` which two exchanges stand around experts,
`row_paths.py` whether the ops between them treat every row alone, `row_layouts.py` how values there
keep their rows, `row_exports.py` what others read of them.

Imports `cut`, `proofs`, `ir`, and `dropless` for the layers that stand among the same sites.

Terms:
    path: the ops from a put to a fetch, which can run for some rows at a time.
    imports, exports: values that a path reads rows of from outside; those that others read of it.
    source, place: the device that a row is from; where it stands among the rows of an expert.
"""
