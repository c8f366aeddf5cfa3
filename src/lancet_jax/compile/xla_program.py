"""A candidate as XLA gets it: a module of our own, marked, and the options that it needs."""

from dataclasses import dataclass

from jaxlib.mlir import ir

from lancet_jax.compile.candidate import Candidate
from lancet_jax.compile.job import StepJob, digest
from lancet_jax.seams.compiling import XlaOptions
from lancet_jax.seams.step_module import copied_apart, mark
from lancet_jax.seams.xla_options import compile_only_options, cost_options, split_options


@dataclass(frozen=True)
class XlaProgram:
    """What XLA compiles.

    Attributes:
        module: marked with `salt`.
        salt: 16 hex digits over everything that the program depends on.
        options: XLA options to add where the user did not set them.
    """

    module: ir.Module
    salt: str
    options: XlaOptions

    @staticmethod
    def of(candidate: Candidate, job: StepJob, prices: str) -> "XlaProgram":
        """Return what XLA gets to compile a candidate.

        A step that no pass has changed is compiled as jit lowered it, calls and shardings as they
        were.

        Args:
            candidate: what passes made of the step.
            job: for whom it is compiled.
            prices: name and fingerprint of the costs that it is planned with.
        """
        module = copied_apart(candidate.module.ir if candidate.changes else job.module)
        text = module.operation.get_asm(enable_debug_info=False)
        said = [f"{name}={value}" for name, value in sorted(candidate.options.items())]
        salt = digest(job.salt(prices), text, *said)
        mark(module, salt)
        return XlaProgram(module, salt, options_of(candidate, job))


def options_of(candidate: Candidate, job: StepJob) -> XlaOptions:
    """Return the XLA options that a candidate is compiled with, besides the user's own."""
    return {
        **compile_only_options(job.devices),
        **split_options(job.devices, candidate.is_cut),
        **(cost_options(job.devices) if job.behind_scheduler.passes else {}),
        **candidate.options,
    }
