"""Puts the commands together, and turns every mendable error into one message and exit code 2."""

import gc
import logging
import sys
import warnings
from collections.abc import Sequence

from cyclopts import App, CycloptsError
from rich.console import Console

from hlo_passes.errors import LancetError
from lancet_jax.cli.calibrate import calibrate
from lancet_jax.cli.check import check
from lancet_jax.cli.demo import demo
from lancet_jax.cli.diff import diff
from lancet_jax.cli.doctor import doctor
from lancet_jax.cli.inspect import inspect
from lancet_jax.cli.opt import opt
from lancet_jax.cli.passes import passes
from lancet_jax.cli.plan import plan
from lancet_jax.cli.view import view
from lancet_jax.cli.whatif import whatif

OK, BAD_INPUT = 0, 2


def make_app() -> App:
    """Build the command line."""
    app = App(
        name="lancet-jax",
        help="Hides Mixture-of-Experts all-to-alls behind the whole JAX training step.",
        help_format="markdown",
    )
    for command in (
        inspect, view, diff, check, whatif, calibrate, plan, opt, passes, demo, doctor,
    ):  # fmt: skip
        app.command(command)
    app.register_install_completion_command(
        help="Install tab completion for this shell (bash, zsh or fish)."
    )
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and leave the process with its exit code.

    0 if all went well; 2, with one message on stderr, for input that cannot be used.
    """
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    warnings.simplefilter("default")
    spare_garbage_collection()
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def spare_garbage_collection() -> None:
    """Look for garbage less often, in a process that is ours.

    A module is a million small objects that live as long as the command: going through them again
    and again takes a sixth of the time.
    """
    gc.set_threshold(200_000, 20, 100)


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code."""
    stderr = Console(stderr=True, highlight=False)
    try:
        result = make_app()(list(arguments), exit_on_error=False, print_error=False,
                            result_action="return_value")  # fmt: skip
    except LancetError as error:
        stderr.print(f"error: {error}", markup=False, soft_wrap=True)
        return BAD_INPUT
    except CycloptsError as error:
        stderr.print(f"error: {error}\n  try: lancet-jax --help", markup=False, soft_wrap=True)
        return BAD_INPUT
    except KeyboardInterrupt:
        stderr.print("interrupted", markup=False)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return OK
    return result if isinstance(result, int) else OK
