"""Builds an order op by op and keeps it legal, whatever is asked for."""

from hlo_passes.schedule.problem import Lane, Problem


class Issuer:
    """An order in the making.

    Ops that take no time place themselves: at once if they hold no memory of their own, so that
    what they read is set free early; otherwise just before their first reader, so that they hold
    it briefly. O(edges) for a whole order.

    Attributes:
        order: the ops issued so far.
        opened: every op once nothing keeps it waiting any more, in the order in which that came
            about; ops that take no time count as issued from then on.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.order: list[int] = []
        self.opened: list[int] = []
        self._missing = [len(p) for p in problem.preds]
        self._placed = bytearray(problem.size)
        self._held = bytearray(problem.size)
        for op in range(problem.size):
            if not problem.preds[op]:
                self._open(op)

    def has(self, op: int) -> bool:
        """Whether `op` has been issued."""
        return bool(self._placed[op])

    def pull(self, op: int) -> None:
        """Issue `op`, after whatever it still has to follow, in program order."""
        for pulled in self.pulled(op):
            if not self._placed[pulled]:  # one before it may have set it free to place itself
                self._place(pulled)

    def pulled(self, op: int) -> list[int]:
        """Return what `pull` would issue, `op` last."""
        preds, placed = self.problem.preds, self._placed
        found: dict[int, None] = {}
        stack = [op]
        while stack:
            top = stack[-1]
            missing = [p for p in preds[top] if not placed[p] and p not in found]
            if missing:
                stack += reversed(missing)
            else:
                if not placed[top]:
                    found[top] = None
                stack.pop()
        return list(found)

    def finish(self) -> tuple[int, ...]:
        """Issue everything that is left, in program order, and return the complete order."""
        for op in range(self.problem.size):
            self.pull(op)
        return tuple(self.order)

    def _place(self, op: int) -> None:
        self._placed[op] = 1
        self.order.append(op)
        if not self._held[op]:
            self._release(op)

    def _release(self, op: int) -> None:
        """Tell the successors of an op that nothing keeps them waiting for it any more."""
        released = [op]
        while released:
            for after in self.problem.succs[released.pop()]:
                self._missing[after] -= 1
                if self._missing[after] == 0 and self._opens_others(after):
                    released.append(after)

    def _open(self, op: int) -> None:
        if self._opens_others(op):
            self._release(op)

    def _opens_others(self, op: int) -> bool:
        """Note that `op` may be issued; return whether its successors need not wait for that."""
        self.opened.append(op)
        if self.problem.lane[op] is not Lane.FREE:
            return False
        follows_held = any(not self._placed[p] for p in self.problem.preds[op])
        if self.problem.buffers.makes[op] or follows_held:
            self._held[op] = 1
        else:
            self._placed[op] = 1
            self.order.append(op)
        return True
