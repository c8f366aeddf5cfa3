"""How ops are cut: one small file a family, put together in `catalogue.py`.

A *rule* (`rule.py`) decides and builds: `cut` says, for one operand or result that is cut, how all
others are, or raises `NotProved`; `part` builds the op of one part. Most ops are seen as loops over
dims (`OpLoop`): a dim that the results have too stays cut, one that they lack makes them sums.

Imports `cut.states`, `ir`, and of `proofs` the refusal and what prefix sums are.
"""
