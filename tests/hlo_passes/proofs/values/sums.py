"""Text of reductions and prefix sums."""

from tests.hlo_passes.proofs.values.numbers import Kind
from tests.hlo_passes.proofs.values.program import Value, Writer


def region(merge: str, kind: Kind) -> str:
    """Return a region that puts two elements together; `set` takes the second."""
    put = "" if merge == "set" else f"%s = stablehlo.{merge} %a, %b : {kind}\n    "
    return (f"({{\n  ^bb0(%a: {kind}, %b: {kind}):\n    {put}stablehlo.return "
            f"{'%b' if merge == 'set' else '%s'} : {kind}\n  }})")  # fmt: skip


def prefix(x: Value, start: Value, dim: int, window: int = 0, merge: str = "add") -> str:
    """Return the text of a prefix sum as `jnp.cumsum` makes it, or of a shorter window."""
    size = window or x.shape[dim]
    sizes = ", ".join(str(size if d == dim else 1) for d in range(len(x.shape)))
    pads = [[size - 1 if d == dim else 0, 0] for d in range(len(x.shape))]
    return (
        f'"stablehlo.reduce_window"({x.name}, {start.name}) <{{padding = dense<{pads}> : '
        f"tensor<{len(pads)}x2xi64>, window_dimensions = array<i64: {sizes}>}}> "
        f"{region(merge, start.kind)} : ({x.kind}, {start.kind}) -> {x.kind}"
    )


def scan(out: Writer, x: Value, dim: int, start: int = 0) -> Value:
    """Write a prefix sum as a `chlo.scan`, run as a window: XLA:CPU has no scans."""
    shape = tuple(s for d, s in enumerate(x.shape) if d != dim)
    end, last = x.kind.shaped(*shape), [1 if d == dim else s for d, s in enumerate(x.shape)]
    begin, zero = out.constant(start, end), out.constant(start, x.kind.shaped())
    cut = ", ".join(f"{x.shape[d] - 1 if d == dim else 0}:{s}" for d, s in enumerate(x.shape))
    found, _ = out.op(
        f'"chlo.scan"({x.name}, {begin.name}) <{{dimension = {dim} : i64, is_reverse = false, '
        f"operandSegmentSizes = array<i32: 1, 1>, resultSegmentSizes = array<i32: 1, 1>}}> ({{\n"
        f"  ^bb0(%a: {end}, %b: {end}):\n    %s = stablehlo.add %a, %b : {end}\n"
        f"    stablehlo.return %s, %s : {end}, {end}\n  }}) : ({x.kind}, {end}) -> ({x.kind}, {end})",
        x.kind,
        end,
        run=(
            "{0} = " + prefix(x, zero, dim).replace("{", "{{").replace("}", "}}"),
            f"{{0}}_last = stablehlo.slice {{0}} [{cut}] : ({x.kind}) -> {x.kind.shaped(*last)}",
            f"{{1}} = stablehlo.reshape {{0}}_last : ({x.kind.shaped(*last)}) -> {end}",
        ),
    )
    return found
