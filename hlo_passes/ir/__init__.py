"""Modules as text and as MLIR, and the graph that both become.

Reads what JAX and XLA write, in `stablehlo` and `hlo`, and makes a `Graph` of it: ops, what they
read and make, exchanges, memory that is taken over in place. Says what one op is and does
(`traits`, `work`, `trips`) and who takes part in an exchange (`collectives`, `device_groups`).
Decides nothing.

May import `errors` and `files`; nothing else of the compiler.

Terms:
    graph: a computation in program order; loops and branches have graphs of their own inside.
    op, value: a node, and what it makes: one tensor (a leaf) or, in HLO, a tuple of them.
    key: a name of an op that stays the same while others come and go.
    exchange: an op that talks to other devices; `Collective` says what, how much and with whom.
    start, done: the halves of an exchange that runs beside other ops.
    opaque: a custom call that exchanges without saying so; the user says it.
"""
