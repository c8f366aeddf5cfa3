"""A step, what XLA makes of it, and how it is compiled, with no XLA anywhere."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import jax

from hlo_passes.plans import Plan, Prediction, Split
from lancet_jax.compile.candidate import Candidate
from lancet_jax.compile.clock import Clock
from lancet_jax.compile.enact import Enacted
from lancet_jax.compile.tournament import Judged

MERGED = {"xla_gpu_dot_merger_threshold_mb": 0}
UNFUSED = {"xla_disable_hlo_passes": "multi_output_fusion"}


def prediction(step_us=10.0, exposed_us=1.0, peak_bytes=100):
    return Prediction(
        step_us=step_us, compute_us=step_us, exchange_us=exposed_us, exposed_us=exposed_us,
        exposed_all_to_all_us=exposed_us, peak_bytes=peak_bytes,
    )  # fmt: skip


def plan(strategy="full k=2", after_us=0.0, before_us=0.0, is_cut=True, step="choose-split"):
    """A plan of the given pass; one that changes nothing if it is not to cut."""
    cut = (Split(by=step, block="main", first=0, last=1, k=2),)
    return Plan(
        module="m", target="h100:1x8", passes=(step,), strategy=strategy,
        edits=cut if is_cut else (),
        before=prediction(before_us) if before_us else None,
        after=prediction(after_us) if after_us else None,
    )  # fmt: skip


def whole(predicted_us=0.0):
    """The step that no pass has changed."""
    return Candidate("whole", (plan(before_us=predicted_us, is_cut=False),))


def cut(name="full k=2", predicted_us=0.0):
    """The step as a pass has cut it."""
    return Candidate(name, (plan(name, after_us=predicted_us),))


@dataclass(frozen=True)
class Made:
    """What XLA has scheduled, as far as a race looks at it."""

    step_us: float = 10.0
    peak_bytes: int = 100
    exposed_us: float = 1.0
    stock_us: float = 12.0
    tied: dict[str, tuple[str, ...]] = field(default_factory=dict)
    plans: tuple[Plan, ...] = ()

    @property
    def after(self):
        return prediction(self.step_us, self.exposed_us, self.peak_bytes)

    @property
    def before(self):
        return prediction(self.stock_us, self.exposed_us, self.peak_bytes)

    @property
    def device_bytes(self):
        return self.peak_bytes

    def fits(self, limit):
        return limit is None or self.peak_bytes <= limit


def judged(one, made=None, fits=True, **more):
    return Judged(one, made, fits=fits and made is not None, **more)


@dataclass(frozen=True)
class Executable:
    """What XLA has compiled, as large as is said."""

    bytes: int = 100

    def get_compiled_memory_stats(self):
        return SimpleNamespace(
            argument_size_in_bytes=0, output_size_in_bytes=0, alias_size_in_bytes=0,
            temp_size_in_bytes=self.bytes,
        )  # fmt: skip


class Xla:
    """Schedules what `makes` says by the name of a candidate, and writes down what it was asked."""

    def __init__(self, makes):
        self.makes, self.asked = makes, []

    def scheduled(self, module, salt, options):
        self.asked.append(module)
        made = self.makes[module]
        if isinstance(made, Exception):
            raise made
        return made


@dataclass
class Enactment:
    """How candidates are compiled; by name, what each becomes once scheduled, and in full."""

    makes: dict[str, Any] = field(default_factory=dict)
    executables: dict[str, Any] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)
    search: str | float = "thorough"
    entrants: int = 4
    memory_limit: int | None = None
    passes: tuple[Any, ...] = ()
    fellows: Any = None
    is_open: bool = True
    is_judged: bool = True
    decides_for_all: bool = False
    prices: str = "h100:1x8 0f"

    def __post_init__(self):
        self.clock = Clock("jit_step")
        self.xla = Xla(self.makes)
        self.scheduler = SimpleNamespace(plan=lambda made: made)
        self.shared = SimpleNamespace(is_used=self.decides_for_all)
        self.compiled, self.orders = [], []
        self.job = SimpleNamespace(
            options=SimpleNamespace(search=self.search), entrants=self.entrants,
            memory_limit=self.memory_limit, before_xla=SimpleNamespace(passes=self.passes),
            is_open=self.is_open, is_judged=self.is_judged, module="whole",
            salt=lambda prices: "5a17",
            peers=object() if self.decides_for_all else None,
        )  # fmt: skip

    def program(self, one):
        return SimpleNamespace(module=one.name, salt="", options=self.options(one))

    def options(self, one):
        return {**self.given, **one.options}

    def compile(self, one, orders=(), accept=lambda found: None):
        """Compile a candidate: an error is raised, and what is not accepted ends there."""
        self.compiled.append(one.name)
        self.orders.append(tuple(orders))
        made = self.executables.get(one.name, Executable())
        if isinstance(made, Exception):
            raise made
        scheduled = self.makes.get(one.name)
        try:
            accept(scheduled)
        except Exception:
            made = None
        return Enacted(one, self.program(one), made, scheduled)


@dataclass(frozen=True)
class Fellows:
    """Other processes, that could judge what is said."""

    could: bytes

    def gather_once(self, topic, mine):
        assert topic.startswith("judged/")
        return (mine, self.could)


def too_large():
    """What XLA raises for a step that does not fit."""
    return jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 90 GB\nmore")
