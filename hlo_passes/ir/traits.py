"""What is known of op kinds, once for graphs, prices, plans and proofs.

Kinds are StableHLO's names without their dialect; HLO's opcodes are the same with underscores. A
kind that is in no set has no trait: it reads its operands, computes, and writes its results.
"""

POINTWISE = frozenset({
    "abs", "acos", "add", "and", "asin", "atan", "atan2", "cbrt", "ceil", "clamp", "compare",
    "complex", "convert", "cosh", "cosine", "count_leading_zeros", "digamma", "divide", "erf",
    "erf_inv", "erfc", "exponential", "exponential_minus_one", "floor", "imag", "is_finite",
    "lgamma", "log", "log_plus_one", "logistic", "maximum", "minimum", "multiply", "negate", "not",
    "or", "popcnt", "power", "real", "reduce_precision", "remainder", "round_nearest_afz",
    "round_nearest_even", "rsqrt", "select", "shift_left", "shift_right_arithmetic",
    "shift_right_logical", "sign", "sine", "sinh", "sqrt", "square", "subtract", "tan", "tanh",
    "xor",
})  # fmt: skip
"""Every element of the result is made of the elements at its place."""

KEEPS_ONE = frozenset({"abs", "cbrt", "convert", "sign", "sqrt", "square"})
"""Ops that make 0 of 0 and 1 of 1."""

KEEPS_ZERO = KEEPS_ONE | {
    "asin", "asinh", "atan", "atanh", "ceil", "erf", "erf_inv", "exponential_minus_one", "floor",
    "imag", "log_plus_one", "negate", "real", "reduce_precision", "round_nearest_afz",
    "round_nearest_even", "sine", "sinh", "tan", "tanh",
}  # fmt: skip
"""Ops that make 0 of 0."""

PRODUCTS = frozenset({"dot", "dot_general", "ragged_dot", "convolution"})
"""Matrix products."""

REDUCES = frozenset({"reduce", "reduce_window", "sort"})
"""The work is that of what is read, which may be more than what is made."""

SLICES = frozenset({"gather", "dynamic_slice", "slice"})
"""Of the first operand only as much is read as is returned."""

UPDATES = frozenset({"dynamic_update_slice", "scatter"})
"""The result may take over the first operand's buffer, of which only a part is written."""

LIES_IN_MEMORY = UPDATES | {"gather"}
"""The first operand is read where it lies, and cannot be computed on the way."""

BARRIERS = frozenset({"optimization_barrier", "opt_barrier"})

RENAMES = BARRIERS | {
    "add_dependency", "bitcast", "domain", "get_tuple_element", "reshape", "tuple",
}  # fmt: skip
"""The result is (part of) the operands' memory under another name or shape."""

FREE = (RENAMES - {"domain"}) | {
    "after_all", "async_update", "constant", "create_token", "iota", "parameter", "partition_id",
    "replica_id", "return",
}  # fmt: skip
"""No kernel runs: a name for memory, or a value that is folded into its users."""

MOVES_NOTHING = FREE | {"broadcast", "broadcast_in_dim"}
"""Nothing is read or written on its own."""

IN_READERS = POINTWISE | SLICES | {
    "bitcast_convert", "broadcast", "broadcast_in_dim", "concatenate", "constant", "copy", "iota",
    "pad", "reverse", "transpose",
}  # fmt: skip
"""Can be computed inside the kernel of a reader."""

TAKES_IN = IN_READERS | UPDATES | {"reduce"}
"""Its kernel can compute its operands."""

BRANCHES = frozenset({"case", "conditional", "if"})
"""Runs one of the computations inside, as a number says that the host has to read."""

EFFECTS = frozenset({"infeed", "outfeed", "recv", "recv_done", "rng", "send", "send_done"})
"""The outside sees that it ran, and in which order."""

BY_RANK = frozenset({"infeed", "partition_id", "recv", "recv_done", "replica_id", "rng"})
"""Devices that read the same may get different results."""
