"""Lancet's own algorithms, as published: the greedy for dW, and what to split into a pipeline.

`greedy` is section 4.2 (Algorithm 1) with `gaps` for gradient sums; `ranges` is the dynamic program
of section 5 over ranges of ops, each priced by `pipeline`.

May import `schedule`'s own files, and what these may.

Terms:
    filler: compute that may run beside an exchange: the paper's weight gradients, and more.
    range: consecutive ops that are cut and run as a pipeline.
    group: ops of a range that are split together (section 7).
    stage: consecutive nodes of a pipeline on one lane.
"""
