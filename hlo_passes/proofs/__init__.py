"""What is proved of values, whatever the input: nothing here edits a module, or knows a layer.

A *domain* (`engine.py`) is one kind of fact: which constant a value is, between which numbers it is
(`ranges.py`), what it counts (`counting.py`), where a mask may differ from zero (`one_hot.py`). It
has one rule per kind of op, and looks at every value once. A question that combines domains stands
in a file of its own: whether index vectors are distinct (`distinct.py`), which elements readers
need (`only_where.py`). What cannot be proved raises `NotProved`, with the reason in words.

Imports `ir` alone, of the packages beside it.

Terms:
    value number: equal for values that are equal in every run.
    hot: a comparison of an index with the places along a dim; where it holds, a mask may not be 0.
    term: hots that hold together; a mask is zero where none of its terms holds.
    fill: what stands in the rows of a buffer that nobody sent.
"""
