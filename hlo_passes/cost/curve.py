"""Time over payload as measured points, and what lies between and beyond them."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Curve:
    """Points (bytes, us), ascending in bytes, joined by straight lines.

    Make it with `Curve.of`, which sorts and checks.

    Attributes:
        knots: the points, no two of the same size.
    """

    knots: tuple[tuple[float, float], ...]

    @staticmethod
    def of(points: Iterable[tuple[float, float]]) -> "Curve":
        """Sort points and merge those of the same size into their median.

        Raises:
            ValueError: if there is no point, or one is negative or not a number.
        """
        times: dict[float, list[float]] = {}
        for size, us in points:
            if not (0 <= size < float("inf") and 0 <= us < float("inf")):
                raise ValueError(f"point ({size}, {us}) is no size in bytes and time in us")
            times.setdefault(size, []).append(us)
        if not times:
            raise ValueError("no points")
        return Curve(tuple((size, median(times[size])) for size in sorted(times)))

    def at(self, size: float) -> float:
        """Return the us for a payload of `size` bytes.

        Exact at a knot, on the line between two of them; below the first knot its time, which is
        the floor that latency sets; above the last one the slope of the last piece, never falling.
        """
        if size <= self.knots[0][0]:
            return self.knots[0][1]
        if size >= self.knots[-1][0]:
            return self.knots[-1][1] + self._last_slope() * (size - self.knots[-1][0])
        after = bisect_right(self.knots, size, key=lambda knot: knot[0])
        (x0, y0), (x1, y1) = self.knots[after - 1], self.knots[after]
        part = (size - x0) / (x1 - x0)
        return y0 * (1 - part) + y1 * part

    def dips(self, tolerance: float = 0.0) -> tuple[float, ...]:
        """Return the sizes that take less time than some smaller size.

        Args:
            tolerance: by what share a larger payload may be faster without being named.
        """
        found, highest = [], 0.0
        for size, us in self.knots:
            if us < highest * (1 - tolerance):
                found.append(size)
            highest = max(highest, us)
        return tuple(found)

    def _last_slope(self) -> float:
        """Return the us per byte beyond the last knot; through the origin if it is the only one."""
        (x0, y0), (x1, y1) = ((0.0, 0.0), *self.knots)[-2:]
        return max((y1 - y0) / (x1 - x0), 0.0) if x1 > x0 else 0.0
