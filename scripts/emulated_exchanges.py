"""Turns a scheduled module of many devices into one for a single device with emulated exchanges.

Every exchange becomes a pair of custom calls around the same buffers, where its start and its done
stood: fusions, kernels, order and memory stay those that XLA chose for all the devices. Nothing is
imported here but the standard library: this also runs where lancet_jax is not installed.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

START, DONE = "lancet_exchange_start", "lancet_exchange_done"
"""Targets of the custom calls; `emulated_exchanges.cu` implements them."""

KINDS = (
    "ragged-all-to-all", "all-to-all", "all-reduce", "all-gather", "reduce-scatter",
    "collective-permute", "collective-broadcast",
)  # fmt: skip

_LINE = re.compile(r"^(?P<indent>\s+(?:ROOT )?)%(?P<name>[\w.\-]+) = (?P<rest>.*)$")
_CALL = re.compile(rf" (?P<kind>{'|'.join(KINDS)})(?P<half>-start|-done)?\(")
_SPACE = re.compile(r"(?<=[\d}\])]):S\(\d+\)|(?<=\{):S\(\d+\)")
_SHARDING = re.compile(r", sharding=\{(?:[^{}]|\{[^{}]*\})*\}")
_KEPT = re.compile(r", (metadata=\{.*?\}(?=,|$))")


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange of the program.

    Attributes:
        number: its number in the program, from 0: the slot of its events.
        name: of the line that starts it.
        kind: its opcode, without `-start`.
        us: how long it takes, modelled.
        block: the computation that it is in.
    """

    number: int
    name: str
    kind: str
    us: float
    block: str


@dataclass(frozen=True, slots=True)
class Emulated:
    """A module for one device.

    Attributes:
        text: HLO, scheduled.
        exchanges: what was replaced, in the order of the text.
    """

    text: str
    exchanges: tuple[Exchange, ...]


def emulate(text: str, times_us: Mapping[str, float]) -> Emulated:
    """Replace a scheduled module's exchanges.

    Args:
        text: what XLA compiled for all devices: `compiled.as_text()`.
        times_us: what every exchange takes, by the name of the line that starts it.

    Raises:
        ValueError: if the text is no scheduled module, an exchange has no time, or one is spelled
            in a way that is not known.
    """
    header = re.search(r"^HloModule .*$", text, re.MULTILINE)
    if header is None or "is_scheduled=true" not in header[0]:
        raise ValueError("no scheduled HLO module")
    text = _header(header[0]) + text[header.end() :]
    text = _SHARDING.sub("", _SPACE.sub("", text))
    found: list[Exchange] = []
    rows: list[str] = []
    started: dict[str, _Start] = {}
    types = _done_types(text)
    block = ""
    for row in text.split("\n"):
        if row.endswith("{") and not row.startswith(" "):
            block = row.removeprefix("ENTRY ").split(" ")[0].lstrip("%")
        line = _LINE.match(row)
        call = _CALL.search(_bare(line["rest"])) if line else None
        if line is None or call is None:
            rows.append(row)
            continue
        if call["half"] == "-done":
            rows.append(_done(line, started))
            continue
        us = times_us.get(line["name"])
        if us is None:
            raise ValueError(f"{line['name']}: no time is given for this exchange")
        found.append(Exchange(len(found), line["name"], call["kind"], us, block))
        rows += _started(line, call, types, found[-1], started)
    return Emulated("\n".join(rows), tuple(found))


@dataclass(frozen=True, slots=True)
class _Start:
    """What a done needs to know of its start."""

    type: str
    operands: tuple[str, ...]
    number: int


def _header(row: str) -> str:
    """Return the module's first line for one device: its name, its order, its donations."""
    name = row.split(" ")[1].rstrip(",")
    kept = [f"HloModule {name}", "is_scheduled=true"]
    for key in ("input_output_alias", "entry_computation_layout"):
        at = row.find(f"{key}={{")
        if at >= 0:
            kept.append(row[at : _closing(row, at + len(key) + 1) + 1])
    return ", ".join(kept)


def _closing(row: str, at: int) -> int:
    """Return where the bracket at `at` closes."""
    depth = 0
    for i in range(at, len(row)):
        depth += {"{": 1, "(": 1, "[": 1, "}": -1, ")": -1, "]": -1}.get(row[i], 0)
        if depth == 0:
            return i
    raise ValueError(f"a bracket does not close: {row[at : at + 60]}")


def _bare(rest: str) -> str:
    """Return an instruction up to its operands: what stands in attributes is no opcode."""
    at = _closing(rest, 0) if rest.startswith("(") else 0
    opens = rest.find("(", at + 1)
    return rest[: opens + 1]


def _done_types(text: str) -> dict[str, str]:
    """Return the results' types of asynchronous exchanges, by the name of the start."""
    pattern = rf"^\s+(?:ROOT )?%[\w.\-]+ = (.*?) (?:{'|'.join(KINDS)})-done\([^%]*%([\w.\-]+)\)"
    return {name: made for made, name in re.findall(pattern, text, re.MULTILINE)}


def _started(
    line: re.Match[str],
    call: re.Match[str],
    types: Mapping[str, str],
    exchange: Exchange,
    started: dict[str, _Start],
) -> Iterator[str]:
    """Yield the lines that take the place of a start, or of an exchange that is waited for."""
    name, rest = line["name"], line["rest"]
    opens = rest.index(call[0]) + len(call[0]) - 1
    closes = _closing(rest, opens)
    operands = tuple(re.findall(r"%([\w.\-]+)", rest[opens + 1 : closes]))
    tail = rest[closes + 1 :]
    is_async = call["half"] == "-start"
    made = types.get(name) if is_async else rest[: rest.index(call[0])]
    if made is None:
        raise ValueError(f"{name}: an exchange that nothing waits for")
    begun = name if is_async else f"{name}.start"
    started[begun] = _Start(made, operands, exchange.number)
    attributes = f"{{number = {exchange.number} : i64, us = {exchange.us:.6f} : f64}}"
    yield (
        f"  %{begun} = {made} custom-call({_references(operands)}), "
        f'custom_call_target="{START}", custom_call_has_side_effect=true, '
        f"api_version=API_VERSION_TYPED_FFI{_in_place(tail, exchange.kind)}"
        f'{_metadata(tail)}, backend_config="{attributes}"'
    )
    if not is_async:
        yield _finished(line["indent"], name, begun, started[begun], _metadata(tail))
    if '"is_sync":true' in tail and is_async:
        raise ValueError(f"{name}: an asynchronous exchange that is marked as waited for")


def _in_place(tail: str, kind: str) -> str:
    """Return the attribute that lets an exchange write where its operand lies, if it did so."""
    if kind == "ragged-all-to-all":
        return ", output_to_operand_aliasing={{}: (1, {})}"
    pairs = re.search(r"output_to_operand_aliasing=\{\{1\}: \(0, \{\}\)\}", tail)
    if pairs is None and "output_to_operand_aliasing" in tail:
        raise ValueError(f"exchanges in place of several buffers are not known: {tail[:120]}")
    return ", output_to_operand_aliasing={{}: (0, {})}" if pairs else ""


def _done(line: re.Match[str], started: Mapping[str, _Start]) -> str:
    names = re.findall(r"%([\w.\-]+)", _CALL.split(line["rest"])[-1].split(")")[0])
    begun = names[-1]
    if begun not in started:
        raise ValueError(f"{line['name']}: ends {begun}, which does not start before it")
    return _finished(line["indent"], line["name"], begun, started[begun], _metadata(line["rest"]))


def _finished(indent: str, name: str, begun: str, start: _Start, metadata: str) -> str:
    """Return the line that waits; it reads what was sent, so that it lives until then."""
    pieces = _pieces(start.type)
    pairs = ["{}: (0, {})"] if len(pieces) == 1 else [
        f"{{{i}}}: (0, {{{i}}})" for i in range(len(pieces))
    ]  # fmt: skip
    reads = (begun, *(name for name in start.operands))
    return (
        f"{indent}%{name} = {start.type} custom-call({_references(reads)}), "
        f'custom_call_target="{DONE}", custom_call_has_side_effect=true, '
        f"api_version=API_VERSION_TYPED_FFI, output_to_operand_aliasing={{{', '.join(pairs)}}}"
        f'{metadata}, backend_config="{{number = {start.number} : i64}}"'
    )


def _pieces(made: str) -> list[str]:
    """Return the buffers of a type that is a tuple, or the one buffer."""
    if not made.startswith("("):
        return [made]
    return re.findall(r"[a-z]\w*\[[^\]]*\](?:\{[^}]*\})?", made)


def _references(names: tuple[str, ...]) -> str:
    return ", ".join(f"%{name}" for name in names)


def _metadata(tail: str) -> str:
    found = re.search(r"metadata=\{[^}]*\}", tail)
    return f", {found[0]}" if found else ""
