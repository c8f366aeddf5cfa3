"""Why things were left as they are, each reason once: the one that leaves most exposed first."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from hlo_passes.plans import Plan, Refusal
from lancet_jax.report.comparison import Comparison

_OF_ONE = re.compile(
    r"(?:\S+#\d+|main(?:/\S+)?) (?P<reason>.+?)(?: (?P<source>\S+:\d+))?", re.DOTALL
)
"""A note about one op or block: its key, what is said of it, and `file:line` if that is known."""

_EXPOSED = re.compile(r"(?:partly )?exposed: ")
"""How much of an exchange is exposed, before the reason; here us say it."""

_NAMED = 3
"""How many lines of code are named per reason."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason and all that it holds for.

    Attributes:
        text: why, and what would lift it.
        count: how many exchanges, computations or ops are left for it.
        exposed_us: how long those exchanges stay exposed per step; None if it is about others.
        sources: the lines of code that they come from, each once.
        is_note: whether a note gives it, rather than a plan.
    """

    text: str
    count: int = 1
    exposed_us: float | None = None
    sources: tuple[str, ...] = ()
    is_note: bool = False

    def __str__(self) -> str:
        names = sorted({source.rpartition("/")[2] for source in self.sources})
        more = ", ..." if len(names) > _NAMED else ""
        where = f" ({', '.join(names[:_NAMED])}{more})" if names else ""
        return f"{self._what}: {self.text}{where}"

    @property
    def _what(self) -> str:
        if self.exposed_us is not None:
            exchanges = "1 exchange" if self.count == 1 else f"{self.count} exchanges"
            return f"exposed, {exchanges}, {self.exposed_us:,.0f} us"
        if self.is_note:
            return "note" if self.count == 1 else f"note on {self.count} ops"
        return f"left alone, {self.count}"


def reasons_of(report: Comparison) -> tuple[Reason, ...]:
    """Return why exchanges stay exposed, what plans left alone, and notes, each reason once.

    Exchanges come first, by how long they stay exposed; then what plans say, the decisive one, and
    what the notes say.
    """
    exposed = {w.key: w.exposed_us * w.times for w in report.after.windows}
    plan = report.plan
    first = list(_exposures(plan, exposed)) if plan is not None else []
    first.sort(key=lambda reason: -(reason.exposed_us or 0.0))
    refused = [r for made in reversed(report.plans) for r in made.refusals
               if not (made is plan and _is_exposure(made, r, exposed))]  # fmt: skip
    left = _grouped((r.reason, r.source) for r in refused)
    known = {reason.text for reason in (*first, *left)}
    notes = grouped_notes(report.notes)
    return (*first, *left, *(note for note in notes if note.text not in known))


def grouped_notes(notes: Iterable[str]) -> tuple[Reason, ...]:
    """Return notes, with those that say the same of several ops as one."""
    return _grouped((_apart(note) for note in notes), is_note=True)


def _apart(note: str) -> tuple[str, str]:
    """Return what a note says, and the line of code of what it says it of, or ""."""
    match = _OF_ONE.fullmatch(note)
    return (note, "") if match is None else (match["reason"], match["source"] or "")


def _grouped(said: Iterable[tuple[str, str]], *, is_note: bool = False) -> tuple[Reason, ...]:
    """Group (reason, line of code) by reason."""
    groups: dict[str, list[str]] = {}
    for text, source in said:
        groups.setdefault(text, []).append(source)
    return tuple(
        Reason(text, len(sources), sources=_known(sources), is_note=is_note)
        for text, sources in groups.items()
    )


def _exposures(plan: Plan, exposed: Mapping[str, float]) -> Iterator[Reason]:
    """Yield why exchanges stay exposed, grouped by reason."""
    groups: dict[str, list[Refusal]] = {}
    for refusal in plan.refusals:
        if _is_exposure(plan, refusal, exposed):
            groups.setdefault(_EXPOSED.sub("", refusal.reason, count=1), []).append(refusal)
    for text, refusals in groups.items():
        us = sum(exposed[refusal.op] for refusal in refusals)
        yield Reason(text, len(refusals), us, _known([refusal.source for refusal in refusals]))


def _is_exposure(plan: Plan, refusal: Refusal, exposed: Mapping[str, float]) -> bool:
    """Whether a refusal says why an exchange of the step that runs is exposed.

    Plans that cut speak of the step before it was cut.
    """
    return not plan.splits and not plan.race and refusal.op in exposed


def _known(sources: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(source for source in sources if source))
