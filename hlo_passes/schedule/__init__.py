"""In which order ops are issued, and what comes of it.

A graph becomes a `Problem` (lanes, durations, precedence, memory); an order of it is simulated, as
a GPU runs it, into a `Timeline`. Orders are found by `list` and by `paper`, compared with a `bound`
and, where small, with the `oracle`; `decision` chooses, `reasons` says why an exchange stays
exposed.

May import `layers`, `cut`, `facts`, `proofs`, `plans`, `cost`, `ir`, `files` and `errors`.

Terms:
    lane: what an op holds while it runs: compute, exchange, both or neither.
    stream: where exchanges follow each other; as a rule there is one.
    filler: compute that is placed in an exchange's window.
    urgent, sum: an exchange that more work waits for; one that only updates wait for.
    late: what waits for a gradient sum: an optimizer update.
    spine: the order of all that is not late.
"""
