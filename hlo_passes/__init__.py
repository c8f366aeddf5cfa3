"""The compiler: pure functions from modules and costs to plans and modules.

Passes stand here: a file a pass, named by a verb (`schedule_dw`), with the contract that they keep
(`base`), plans as data (`plans`), presets (`pipelines`) and the one runner (`run`). What they stand
on is in folders, each importing only from those before it: `ir`, `cost`, `proofs`, `facts`, `cut`,
`layers`, `schedule`, then `split` and `partition`. MLIR and HLO are known here; `jax.jit`, Flax,
the command line and `lancet_jax` are not.

Terms:
    plan: what a pass has decided, as data that can be saved, compared and applied again.
    axis, dim: of a mesh; of a tensor.
    window: the time that an exchange is in flight, from its start to its done.
    exposed: time of an exchange with no compute beside it.
    part: one of the k pieces of a split.
    region: consecutive ops that are split together.
    dispatch, combine: the two exchanges of a MoE layer, to the experts and back.
    dX, dW: the ops that make input and weight gradients.
"""
