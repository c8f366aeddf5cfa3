"""Names for ops that survive edits, processes and hosts: scope, kind, ordinal."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class KeyMaker:
    """Hands out keys within one computation, in program order.

    A key reads `jit(step)/layer_3/moe/dot_general#2`: the named scopes around the op as JAX wrote
    them, the op's kind unless the scope ends in it, and its place among ops of the same name.
    """

    _seen: Counter[str] = field(default_factory=Counter)

    def make(self, scope: str, kind: str) -> str:
        """Return the next key for an op of `kind` in `scope`."""
        stem = scope if scope.rsplit("/", 1)[-1] == kind else f"{scope}/{kind}".lstrip("/")
        ordinal = self._seen[stem]
        self._seen[stem] += 1
        return f"{stem}#{ordinal}"
