"""The list scheduler: one pass over the step, the best of what is ready whenever a lane is free.

`run` makes a pass by one of the `policies`; `budget` keeps account of what exchanges to come will
want; `improve` moves what is left exposed.

May import `schedule`'s own files, and what these may.

Terms:
    policy: what counts when several ops are ready.
    kept: compute that is held back for an exchange to come.
    gap: time in which the exchange lane would be idle.
    priority: the longest path from an op to the end, as the policy weighs it.
"""
