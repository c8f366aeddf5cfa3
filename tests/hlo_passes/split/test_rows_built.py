"""What is built of rows: columns of addresses, the order of a block, products by index."""

from pathlib import Path

import numpy as np
from jaxlib.mlir import ir

from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.ir.stablehlo.module import Module
from hlo_passes.layers.capacity.row_paths import find_row_paths
from hlo_passes.layers.capacity.sites import find_sites
from hlo_passes.layers.masks.products import find_row_products
from hlo_passes.proofs.counting import Counting
from hlo_passes.proofs.one_hot import OneHot
from hlo_passes.proofs.value_numbers import number_values
from hlo_passes.split.build_order import build_order
from hlo_passes.split.columns import columns_of
from hlo_passes.split.index_rows import index_rows
from hlo_passes.split.program import program_of
from tests.hlo_passes.cut.splitting import run

FILES = Path(__file__).parent.parent / "split_region"


def behind(body: Body, values) -> list[int]:
    """Return the places of the ops that values are made by."""
    found, todo = set(), list(values)
    while todo:
        place = body.maker.get(todo.pop(), -1)
        if place >= 0 and place not in found:
            found.add(place)
            todo += body.reads[place]
    return sorted(found)


def test_columns_are_the_expert_and_how_many_tokens_before_chose_it():
    module = Module.parse((FILES / "one_hot.mlir").read_text())
    body = Body(module.body)
    numbers = number_values(body)
    counting = Counting(body, numbers)
    (write,) = find_row_products(body, numbers).writes
    with module.ir.context, ir.Location.unknown():
        with ir.InsertionPoint(body.ops[-1]):
            one_hot = OneHot(counting.constants, counting.ranges)
            columns = columns_of(body, numbers, one_hot, write.address)
        after = Body(module.body)
        text = program_of(after, behind(after, columns), [module.body.arguments[2]], columns)
    expert = np.random.default_rng(0).integers(0, 16, 64).astype(np.int32)
    chosen, rank = run(Module.parse(text), [expert])
    np.testing.assert_array_equal(chosen[:, 0], expert)
    np.testing.assert_array_equal(
        rank[:, 0], [(expert[:t] == e).sum() for t, e in enumerate(expert)]
    )


def test_products_with_masks_become_a_scatter_and_a_gather():
    module = Module.parse((FILES / "one_hot.mlir").read_text())
    body = Body(module.body)
    numbers = number_values(body)
    products = find_row_products(body, numbers)
    with module.ir.context:
        index_rows(body, numbers, products, [write.exchange for write in products.writes])
    after = Body(module.body)
    kinds = [after.kind(i) for i in range(len(after.ops))]
    # The first exchange's product alone was to be replaced; the combine is left as it was.
    assert (kinds.count("scatter"), kinds.count("gather")) == (1, 0)
    assert kinds.count("dot_general") == 3


def test_what_waits_for_rows_is_built_behind_their_way_back():
    module = Module.parse((FILES / "windows.mlir").read_text())
    body = Body(module.body)
    (path,) = find_row_paths(body, find_sites(body)).paths
    order = build_order(body, [path])
    assert sorted(order) == list(range(len(body.ops)))
    at = {place: i for i, place in enumerate(order)}
    for place in sorted(set(order) - path.dropped):
        makers = {body.maker.get(value, -1) for value in body.reads[place]} - {-1}
        # What is dropped is built where rows are taken away.
        ready = [at[path.fetch.exchange if m in path.dropped else m] for m in makers]
        assert all(when <= at[place] for when in ready)
        if path.put.exchange in makers:
            assert at[place] > at[path.fetch.exchange]
