"""Orders that come from sorts, and ops that treat every row alone."""

import numpy as np
import pytest

from hlo_passes.cut.states import Cut
from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.layers.dropless.expert_rows import ROWS, ExpertOpFinder
from hlo_passes.layers.dropless.orders import Orders
from hlo_passes.layers.dropless.routing import find_routings
from hlo_passes.layers.dropless.sorted_rows import SortedRows
from hlo_passes.proofs.counting import Counting
from hlo_passes.proofs.engine import NotProved
from tests.dropless_steps import Dropless, read


class NoPositions:
    """Rows that are not placed by counts."""

    def check(self, indices, routing):
        raise NotProved("not by counts")


def sorted_layer():
    module = Dropless(sort=True, forward=True).module()
    body, numbers, *_ = read(module)
    counting = Counting(body, numbers)
    (routing,) = find_routings(body, numbers, counting)
    sorts = [op for i, op in enumerate(body.ops) if body.kind(i) == "sort"]
    return module, body, routing, sorts, Orders(counting)


def test_a_sort_of_choices_lists_choices_and_a_sort_of_that_lists_places():
    module, _, routing, (first, second, *_), orders = sorted_layer()
    with module.ir.context:
        for op, side in ((first, "choices"), (second, "places")):
            found = orders.read(op.results[1], routing)
            assert found[0] == side
            np.testing.assert_array_equal(found[1], np.arange(16))


def test_tokens_are_read_in_the_order_of_their_choices():
    module, body, routing, sorts, orders = sorted_layer()
    rows = SortedRows(NoPositions(), orders)
    with module.ir.context:
        near = next(op for i, op in enumerate(body.ops) if body.kind(i) == "gather")
        assert rows.choices_of(near.operands[1], routing, tokens=8) == 2
        with pytest.raises(NotProved, match="not the same number"):
            rows.choices_of(near.operands[1], routing, tokens=7)
        with pytest.raises(NotProved, match="in their order"):
            rows.choices_of(near.operands[1], routing, tokens=4)
        rows.check_places(sorts[1].results[1], routing)
        with pytest.raises(NotProved, match="others lie"):
            rows.check_places(sorts[0].results[1], routing)


ROWWISE = """func.func @main(%came: tensor<4x2xf32>, %w: tensor<2x2xf32>) -> (tensor<4x2xf32>, tensor<2x2xf32>) {
  %0 = stablehlo.dot_general %came, %w, contracting_dims = [1] x [0] : (tensor<4x2xf32>, tensor<2x2xf32>) -> tensor<4x2xf32>
  %1 = stablehlo.AFTER
  %2 = stablehlo.negate %1 : tensor<4x2xf32>
  %3 = stablehlo.dot_general %1, %0, contracting_dims = [0] x [0] : (tensor<4x2xf32>, tensor<4x2xf32>) -> tensor<2x2xf32>
  return %2, %3 : tensor<4x2xf32>, tensor<2x2xf32>
}"""


def rows_of(after: str):
    module = Module.parse(ROWWISE.replace("AFTER", after))
    body = Body(module.body)
    never = lambda value: False  # noqa: E731
    finder = ExpertOpFinder(body, 4, (module.body.arguments[0],), frozenset({2}), never, never)
    return finder.find(), body


def test_ops_that_treat_every_row_alone_run_for_the_rows_of_a_part():
    found, _ = rows_of("tanh %0 : tensor<4x2xf32>")
    assert found.live == {0, 1, 3}
    assert found.splits[0].operands == (ROWS, None)
    assert found.splits[3].operands == (Cut(0), Cut(0))
    assert found.tables == ()


@pytest.mark.parametrize(
    ("after", "why"),
    [
        ("reverse %0, dims = [0] : tensor<4x2xf32>", "does not treat every row alone"),
        ("reverse %0, dims = [1] : tensor<4x2xf32>", None),
    ],
)
def test_ops_that_mix_rows_are_refused(after, why):
    if why is None:
        assert rows_of(after)[0].live == {0, 1, 3}
        return
    with pytest.raises(NotProved, match=why):
        rows_of(after)
