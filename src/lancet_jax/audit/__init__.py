"""Holds a cut step against the uncut one, at its first call and on the user's own arguments.

Cuts are proved before they are made; this is what is left to see if a proof is wrong. Outputs are
compared where they lie (`outputs`, `leaves`), or by projections where memory is short (`sketch`,
`room`). How far they may be apart is measured too: arguments are moved in their last bit (`nudge`).
`tally` says what is made of it, `evidence` writes what is needed to see why, without data.

May import `report`, `peers`, `aot`, `profile`, `seams`, `errors` and `hlo_passes`.

Terms:
    leaf: one array of a step's outputs.
    nudge: a change of the arguments in their last bit.
    sketch: random projections of an output.
    room: memory for a second run beside the first.
"""
