"""Which indices take tokens to their rows once these are sorted by expert, and which back."""

from dataclasses import dataclass

import numpy as np
from jaxlib.mlir import ir

from hlo_passes.layers.dropless.orders import Orders
from hlo_passes.layers.dropless.routing import CountedChoices, Positions
from hlo_passes.proofs.engine import NotProved


@dataclass(frozen=True)
class SortedRows:
    """Answers it, whether rows are sorted by counting or by a sort.

    Attributes:
        positions: of rows that are counted.
        orders: of rows that are sorted.
    """

    positions: Positions
    orders: Orders

    def check_places(self, indices: ir.Value, routing: CountedChoices) -> None:
        """Check that indices name the place of every choice's row, in the order of choices.

        Raises:
            NotProved: if they do not, or it is not proved.
        """
        try:
            self.positions.check(indices, routing)
        except NotProved as reason:
            try:
                side, found = self.orders.read(indices, routing)
            except NotProved:
                raise reason from None
            if side != "places" or not np.array_equal(found, np.arange(routing.rows)):
                raise NotProved("rows are read where others lie") from None

    def choices_of(self, indices: ir.Value, routing: CountedChoices, tokens: int) -> int:
        """Check that indices name the token of every row, and return how many rows a token has.

        Args:
            indices: the indices.
            routing: the routing whose rows are meant.
            tokens: number of tokens.

        Raises:
            NotProved: if they do not, or it is not proved.
        """
        side, found = self.orders.read(indices, routing)
        if routing.rows % tokens:
            raise NotProved("tokens have not the same number of rows")
        each = routing.rows // tokens
        if side != "choices" or not np.array_equal(found, np.arange(routing.rows) // each):
            raise NotProved("rows are not those of the tokens in their order")
        return each
