"""A pytest plugin: how many of the drawn steps were cut, over all workers; too few fail the run."""

from dataclasses import dataclass, field

import pytest

KEY = "drawn step"
LEAST_CUT = 0.4
"""A run in which fewer than this share of the steps is cut proves little."""
LEAST_WITH_WINDOWS = 0.01
"""And fewer than this with experts that run part by part: most proofs are about those."""
MOST_DOUBTFUL = 2


@dataclass
class Tally:
    """What the steps of a run reported, each of them its seed and whether it was cut."""

    seeds: set[str] = field(default_factory=set)
    steps: int = 0
    cut: int = 0
    windows: int = 0
    in_64_bits: int = 0
    doubtful: int = 0

    @property
    def is_enough(self) -> bool:
        """Whether enough was cut. A few steps alone may all be of the kind that is left whole."""
        if self.steps < 20:
            return True
        is_enough = self.cut >= LEAST_CUT * self.steps
        has_windows = self.windows >= LEAST_WITH_WINDOWS * self.steps
        return is_enough and has_windows and self.doubtful <= MOST_DOUBTFUL

    def __str__(self) -> str:
        return (
            f"seed {', '.join(sorted(self.seeds))}: {self.cut} of {self.steps} drawn steps were cut"
            f" (at least {LEAST_CUT:.0%}), {self.windows} of them with experts that run part by part"
            f" (at least {LEAST_WITH_WINDOWS:.0%}); {self.in_64_bits} were held against 64 bits,"
            f" {self.doubtful} of them in doubt (at most {MOST_DOUBTFUL})"
        )


_TALLY = pytest.StashKey[Tally]()


def pytest_configure(config):
    config.stash[_TALLY] = Tally()
    config.pluginmanager.register(_Counter(config), "drawn steps")


class _Counter:
    def __init__(self, config):
        self.config = config
        self.tally = config.stash[_TALLY]

    def pytest_runtest_logreport(self, report):
        facts = dict(report.user_properties).get(KEY)
        if report.when == "call" and facts:
            self.tally.seeds.add(facts["seed"])
            self.tally.steps += 1
            self.tally.cut += facts["cut"]
            self.tally.windows += facts["windows"]
            self.tally.in_64_bits += facts["in_64_bits"]
            self.tally.doubtful += facts["doubtful"]

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session):
        is_worker = hasattr(self.config, "workerinput")
        if not is_worker and not self.tally.is_enough and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        if self.tally.steps:
            terminalreporter.section("drawn steps")
            terminalreporter.line(str(self.tally))
            if not self.tally.is_enough:
                terminalreporter.line("too few were cut, or too many are in doubt: the run fails")
