"""The blocks of a module that hold exchanges: the step itself, and the bodies of its loops."""

from collections.abc import Iterator

from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.body import Body


def walk_blocks(block: ir.Block, name: str = "main") -> Iterator[tuple[str, ir.Block]]:
    """Yield a block and the bodies of loops inside it, innermost first, named as graphs are."""
    for i, view in enumerate(block.operations):
        op = view.operation
        if op.name == "stablehlo.while":
            yield from walk_blocks(op.regions[1].blocks[0], f"{name}/while.{i}/1")
    yield name, block


def exchanges_of(body: Body) -> tuple[int, ...]:
    """Return the places of a block's dense all-to-alls."""
    return tuple(i for i in range(len(body.ops)) if body.kind(i) == "all_to_all")


def ragged_exchanges_of(body: Body) -> tuple[int, ...]:
    """Return the places of a block's ragged all-to-alls, as JAX writes them."""
    return tuple(
        i
        for i, op in enumerate(body.ops)
        if body.kind(i) == "custom_call"
        and ir.StringAttr(op.attributes["call_target_name"]).value == "ragged_all_to_all"
    )
