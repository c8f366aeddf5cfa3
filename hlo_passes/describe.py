"""What a pass says of itself: its options with types, defaults and words, from its own fields."""

import dataclasses
import inspect
import re
import typing
from dataclasses import dataclass

from hlo_passes.base import Pass, print_kind, print_value

_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n        .*)*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class OptionHelp:
    """One option of a pass.

    Attributes:
        name: as on the command line.
        kind: what its value is, in words.
        default: its value if not given, as text.
        text: what it does, from the pass's docstring.
    """

    name: str
    kind: str
    default: str
    text: str


@dataclass(frozen=True, slots=True)
class PassHelp:
    """One pass.

    Attributes:
        name: as on the command line.
        tier: what it may do to numbers.
        summary: the first line of its docstring.
        options: in the order of its fields.
    """

    name: str
    tier: str
    summary: str
    options: tuple[OptionHelp, ...]


def describe(cls: type[Pass]) -> PassHelp:
    """Describe a pass; nothing is written down twice, so nothing can be out of date."""
    text = inspect.getdoc(cls) or ""
    _, _, attributes = text.partition("Attributes:\n")
    said = {name: " ".join(words.split()) for name, words in _ATTRIBUTE.findall(attributes)}
    kinds = typing.get_type_hints(cls)
    options = tuple(
        OptionHelp(field.name.replace("_", "-"), print_kind(kinds[field.name]),
                   print_value(field.default), said.get(field.name, ""))
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
    )  # fmt: skip
    return PassHelp(cls.pass_name(), str(cls.tier), text.partition("\n")[0], options)
