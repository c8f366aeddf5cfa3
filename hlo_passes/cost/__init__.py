"""What ops and exchanges cost on a target, and where each figure comes from.

A price is measured (`table`), else XLA's own estimate, else of a roofline (`roofline`) or of the
links (`links`); a `Cost` always says which. Before XLA has fused a graph, `fusion` says what will
be left to move.

May import `ir`, `files` and `errors`.

Terms:
    profile: the figures of one kind of device, with their sources.
    tier: links that join so many devices, and how fast they are.
    target: a profile, and how its devices are joined; `Cluster`.
    fill, skew: the share of padded rows that are sent, and how uneven they are.
    contention: the share by which an exchange in flight slows compute beside it.
"""
