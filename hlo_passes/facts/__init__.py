"""What is true of a graph, whatever is decided about it.

Nouns: which op reaches which (`reach`), what ops are for (`roles`, `moe_roles`), what exchanges are
called (`exchange_labels`), memory (`liveness`, `footprint`), which devices hold the same
(`replicas`) and whether they could wait for each other for ever (`deadlocks`), what is computed
twice (`recompute`), what differs between two graphs (`diff`), the same step elsewhere
(`other_meshes`).

May import `proofs`, `cost`, `plans`, `ir`, `files` and `errors`.

Terms:
    role: forward, dX (backward), dW (weight), optimizer, exchange or gradient sum.
    phase: what an exchange is for: dispatch, combine, gradient sum, other.
    urgent: of an exchange that more work than updates waits for.
    shared: of a value that devices hold alike.
    buffer: memory that an op makes, or takes over from an operand.
"""
