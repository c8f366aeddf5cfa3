"""Measures what a module's kernels and exchanges take on the devices at hand."""

from lancet_jax.calibrate.captured import table_of_capture
from lancet_jax.calibrate.clock import Timing, time_all
from lancet_jax.calibrate.exchanges import Probe, probes_of
from lancet_jax.calibrate.kernels import Kernel, kernels_of
from lancet_jax.calibrate.measure import Measuring

__all__ = [
    "Kernel", "Measuring", "Probe", "Timing", "kernels_of", "probes_of", "table_of_capture",
    "time_all",
]  # fmt: skip
