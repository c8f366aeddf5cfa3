"""Kernels, products and exchanges whose parts wait for different exchanges are ties, others not."""

import pytest

from hlo_passes.facts.ties import (
    find_combined_exchanges,
    find_merged_products,
    find_ties,
    tied_in,
)
from hlo_passes.ir.hlo.scheduled import ScheduledModule
from tests.hlo import scheduled

STEP = """
  %x = f32[8,64]{1,0} parameter(0)
  %y = f32[8,64]{1,0} parameter(1)
  %start.1 = ((f32[8,64]{1,0}), f32[8,64]{1,0}) all-to-all-start(%x), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
  %first = f32[8,64]{1,0} all-to-all-done(%start.1)
  %start.2 = ((f32[8,64]{1,0}), f32[8,64]{1,0}) all-to-all-start(%y), channel_id=2, replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
  %second = f32[8,64]{1,0} all-to-all-done(%start.2)
  %both = (f32[8,64]{1,0}, f32[8,64]{1,0}) fusion(OPERANDS), kind=kLoop, calls=%fused
  %u = f32[8,64]{1,0} get-tuple-element(%both), index=0
  %v = f32[8,64]{1,0} get-tuple-element(%both), index=1
  ROOT %out = (f32[8,64]{1,0}, f32[8,64]{1,0}) tuple(%u, %v)"""

FUSED = """%fused (p: f32[8,64], q: f32[8,64]) -> (f32[8,64], f32[8,64]) {
  %p = f32[8,64]{1,0} parameter(0)
  %q = f32[8,64]{1,0} parameter(1)
  %a = f32[8,64]{1,0} negate(%p)
  %b = f32[8,64]{1,0} OTHER
  ROOT %t = (f32[8,64]{1,0}, f32[8,64]{1,0}) tuple(%a, %b)
}"""


@pytest.mark.parametrize(
    ("operands", "other", "ties"),
    [
        ("%first, %second", "negate(%q)", ("both",)),
        ("%first, %second", "add(%p, %q)", ("both",)),
        ("%first, %x", "add(%p, %q)", ()),
        ("%first, %x", "negate(%q)", ("both",)),
        ("%x, %y", "negate(%q)", ()),
        ("%second, %second", "negate(%q)", ()),
    ],
)
def test_what_ties_exchanges_together(operands, other, ties):
    text = scheduled(STEP.replace("OPERANDS", operands), FUSED.replace("OTHER", other))
    assert find_ties(ScheduledModule(text)) == ties


def test_a_loop_is_looked_at_too():
    body = f"%body (s: f32[8,64]) -> f32[8,64] {{{STEP}\n}}".replace("OPERANDS", "%first, %second")
    body = body.replace("ROOT %out", "%out").replace("%y = f32[8,64]{1,0} parameter(1)",
                                                     "%y = f32[8,64]{1,0} negate(%x)")  # fmt: skip
    body = body.replace("\n}", "\n  ROOT %z = f32[8,64]{1,0} add(%u, %v)\n}")
    condition = """%condition (c: f32[8,64]) -> pred[] {
  %c = f32[8,64]{1,0} parameter(0)
  ROOT %go = pred[] constant(true)
}"""
    entry = """
  %x0 = f32[8,64]{1,0} parameter(0)
  ROOT %loop = f32[8,64]{1,0} while(%x0), condition=%condition, body=%body"""
    text = scheduled(entry, FUSED.replace("OTHER", "negate(%q)"), condition, body)
    assert find_ties(ScheduledModule(text)) == ("both",)


TWO_EXCHANGES = STEP[: STEP.index("  %both =")]
"""`%x` and `%y`, and what comes of either behind an exchange of its own, `%first` and `%second`."""

MERGED = """  %w = f32[64,32]{1,0} parameter(2)
  %rows = f32[16,64]{1,0} ROWS
  ROOT %product = f32[16,32]{1,0} dot(%rows, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}"""


def merged(rows, *others):
    return scheduled(TWO_EXCHANGES + MERGED.replace("ROWS", rows), *others)


@pytest.mark.parametrize(
    ("pieces", "found"),
    [
        ("%first, %second", ("product",)),
        ("%first, %x", ("product",)),
        ("%x, %y", ()),
        ("%first, %first", ()),
    ],
    ids=["two exchanges", "one and none", "none", "the same"],
)
def test_products_of_rows_put_together(pieces, found):
    module = ScheduledModule(merged(f"concatenate({pieces}), dimensions={{0}}"))
    assert find_merged_products(module) == found
    assert find_ties(module) == ()
    assert tied_in(module) == ({"products": found} if found else {})


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ("%p", "%q", ("product",)),
        ("%p", "%sum", ("product",)),
        ("%sum", "%sum", ()),
        ("%p", "%p", ()),
    ],
    ids=["each its own", "one needs both", "both need both", "the same"],
)
def test_rows_put_together_inside_a_kernel(one, other, found):
    inside = f"""%put (p: f32[8,64], q: f32[8,64]) -> f32[16,64] {{
  %p = f32[8,64]{{1,0}} parameter(0)
  %q = f32[8,64]{{1,0}} parameter(1)
  %sum = f32[8,64]{{1,0}} add(%p, %q)
  %pieces = f32[16,64]{{1,0}} concatenate({one}, {other}), dimensions={{0}}
  ROOT %bits = f32[16,64]{{1,0}} bitcast(%pieces)
}}"""
    module = ScheduledModule(merged("fusion(%first, %second), kind=kLoop, calls=%put", inside))
    assert find_merged_products(module) == found


def test_rows_that_no_product_reads_are_no_tie():
    rows = TWO_EXCHANGES + (
        "  ROOT %rows = f32[16,64]{1,0} concatenate(%first, %second), dimensions={0}"
    )
    assert tied_in(ScheduledModule(scheduled(rows))) == {}


def test_a_product_that_needs_all_rows_is_no_tie():
    """What stands between the rows and the product makes every row wait for both anyway."""
    text = merged("concatenate(%first, %second), dimensions={0}").replace(
        "concatenate(%first, %second)", "concatenate(%sum, %sum)"
    )
    text = text.replace("  %w = ", "  %sum = f32[8,64]{1,0} add(%first, %second)\n  %w = ")
    assert find_merged_products(ScheduledModule(text)) == ()


SUM = """%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}"""
SUMS = """  %grads-start = (f32[8,64]{1,0}, f32[8,64]{1,0}) all-reduce-start(OPERANDS), channel_id=3, replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  ROOT %grads = (f32[8,64]{1,0}, f32[8,64]{1,0}) all-reduce-done(%grads-start)"""


@pytest.mark.parametrize(
    ("operands", "found"),
    [
        ("%first, %second", ("grads-start",)),
        ("%first, %x", ("grads-start",)),
        ("%second, %second", ()),
        ("%x, %y", ()),
    ],
    ids=["two exchanges", "one and none", "the same", "none"],
)
def test_exchanges_of_several_values(operands, found):
    text = scheduled(TWO_EXCHANGES + SUMS.replace("OPERANDS", operands), SUM)
    module = ScheduledModule(text)
    assert find_combined_exchanges(module) == found
    assert tied_in(module) == ({"exchanges": found} if found else {})


def test_every_kind_of_tie_is_told_by_its_kind():
    body = STEP.replace("OPERANDS", "%first, %second").replace("  ROOT %out", "  %out")
    rest = MERGED.replace("ROWS", "concatenate(%u, %v), dimensions={0}").replace("ROOT ", "")
    text = scheduled(
        f"{body}\n{rest}\n{SUMS.replace('OPERANDS', '%first, %second')}",
        FUSED.replace("OTHER", "negate(%q)"), SUM,
    )  # fmt: skip
    assert tied_in(ScheduledModule(text)) == {
        "kernels": ("both",), "exchanges": ("grads-start",),
    }, "XLA's kernel makes rows wait for both, its product no longer does"  # fmt: skip
    apart = text.replace("concatenate(%u, %v)", "concatenate(%first, %second)")
    assert tied_in(ScheduledModule(apart)) == {
        "kernels": ("both",), "products": ("product",), "exchanges": ("grads-start",),
    }  # fmt: skip


def test_products_and_exchanges_of_a_loop_are_looked_at_too():
    state = "(f32[8,64]{1,0}, f32[8,64]{1,0}, f32[64,32]{1,0})"
    inside = TWO_EXCHANGES + MERGED + "\n" + SUMS.replace("ROOT ", "")
    inside = inside.replace("ROWS", "concatenate(%first, %second), dimensions={0}")
    inside = inside.replace("OPERANDS", "%first, %second").replace("ROOT ", "")
    for place, name in enumerate(("x", "y", "w")):
        shape = "f32[64,32]{1,0}" if name == "w" else "f32[8,64]{1,0}"
        inside = inside.replace(f"%{name} = {shape} parameter({place})",
                                f"%{name} = {shape} get-tuple-element(%s), index={place}")  # fmt: skip
    body = f"""%body (s: {state}) -> {state} {{
  %s = {state} parameter(0){inside}
  ROOT %next = {state} tuple(%first, %second, %w)
}}"""
    condition = f"""%condition (c: {state}) -> pred[] {{
  %c = {state} parameter(0)
  ROOT %go = pred[] constant(true)
}}"""
    entry = f"""  %s0 = {state} parameter(0)
  ROOT %loop = {state} while(%s0), condition=%condition, body=%body"""
    module = ScheduledModule(scheduled(entry, SUM, condition, body))
    assert tied_in(module) == {"products": ("product",), "exchanges": ("grads-start",)}
