"""The one error that bad input, an unknown name or a stale plan ends in."""


class LancetError(Exception):
    """An error that a user can mend.

    Its message reads *where: what; try: remedy*.

    Args:
        where: file and line, op, option or target that the trouble is at.
        what: the fact, with numbers.
        remedy: what to do about it, the likeliest first.
    """

    def __init__(self, where: str, what: str, remedy: str) -> None:
        super().__init__(f"{where}: {what}\n  try: {remedy}")
        self.where = where
        self.what = what
        self.remedy = remedy


class InputError(LancetError, ValueError):
    """A file or module that cannot be read, or is not what it should be."""


class OptionError(LancetError, ValueError):
    """An option, pass, pipeline or target that does not exist or has an unfit value."""


class PlanError(LancetError, ValueError):
    """A plan that belongs to another module, target or version, or breaks the program's order."""


class DeadlockError(LancetError, RuntimeError):
    """A program, or an order of it, in which devices could wait for each other for ever."""


class VerifyError(LancetError, RuntimeError):
    """A module that a pass left illegal. Never caused by a user."""
