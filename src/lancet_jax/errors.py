"""Errors that users meet, all of one shape: *where: what; try: remedy*."""

from hlo_passes.errors import DeadlockError as DeadlockError
from hlo_passes.errors import InputError as InputError
from hlo_passes.errors import LancetError as LancetError
from hlo_passes.errors import OptionError as OptionError
from hlo_passes.errors import PlanError as PlanError
from hlo_passes.errors import VerifyError as VerifyError


class UnsupportedError(LancetError, RuntimeError):
    """A step, device or version that cannot be optimised, where the user asked for an error."""


class PeerError(LancetError, RuntimeError):
    """Another process does not answer, or would run another program."""


class AuditError(LancetError, RuntimeError):
    """A cut step gave other numbers than the uncut one. It is never raised at a first call."""


class LancetWarning(UserWarning):
    """A step that runs as plain jit would run it, and why."""


class AuditWarning(LancetWarning):
    """A cut step gave other numbers than the uncut one, which runs from now on."""
