"""HLO as XLA prints it, and as it serializes it: read, put in another order, written back.

`syntax` knows the words, `text` the lines, `to_graph` what they mean; `scheduled` is a module whose
order XLA has decided, and the only thing that is ever edited in one. `wire` reads protos by hand,
field by field, so that what this version does not know stays as it is.

May import the rest of `ir` except `stablehlo`.

Terms:
    instruction, computation: HLO's op and block.
    statement: an instruction with the lines that XLA breaks it into.
    schedule: the order of a computation's instructions, printed or as a field of the proto.
    printed: as XLA leaves a module, for texts that people have edited.
"""
