"""In which order a block is built anew, so that rows can go their way in one go."""

from collections.abc import Sequence

from hlo_passes.ir.stablehlo.body import Body
from hlo_passes.layers.capacity.row_paths import RowPath


def build_order(body: Body, paths: Sequence[RowPath]) -> tuple[int, ...]:
    """Return the places of a block's ops, in a legal order.

    The ops of a row path are built where its rows are taken away. So of the ops before that place,
    those that read what comes or what is made on the way are put off until then.
    """
    order = list(range(len(body.ops)))
    for path in sorted(paths, key=lambda path: path.fetch.exchange):
        begin, end = (order.index(site.exchange) for site in (path.put, path.fetch))
        stretch, late = [], []
        waits = {path.put.exchange, *path.dropped}
        for place in order[begin + 1 : end]:
            reads = (body.maker.get(value, -1) for value in body.reads[place])
            if place not in path.dropped and any(maker in waits for maker in reads):
                waits.add(place)
                late.append(place)
            else:
                stretch.append(place)
        order[begin + 1 : end + 1] = [*stretch, path.fetch.exchange, *late]
    return tuple(order)
