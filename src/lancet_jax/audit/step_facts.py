"""What a step's StableHLO says of its arguments, results and effects."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxlib.mlir import ir

_DONATED = ("tf.aliasing_output", "jax.buffer_donor")
_NAME = "jax.result_info"

_EFFECTS = {
    "stablehlo.infeed": "it reads from an infeed",
    "stablehlo.outfeed": "it writes to an outfeed",
    "stablehlo.send": "it sends to the host",
    "stablehlo.recv": "it receives from the host",
    "stablehlo.rng": "it draws random numbers without a key",
}
_HARMLESS = ("annotate_device_placement",)
"""Custom calls that say they have an effect only so that XLA does not drop them."""

_CALL = re.compile(r"stablehlo\.custom_call @([\w.$]+)\(.*has_side_effect = true")
_UNITS = {"f64": 2.0**-53, "f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}
_FLOAT = re.compile(r"[x<](bf16|f\d+)[\w]*>")


@dataclass(frozen=True)
class StepFacts:
    """What can be read off a step's module.

    Attributes:
        name: of the module.
        donated: places of arguments whose memory the step may take.
        results: where every result stands in the output tree.
        effect: why it cannot be run twice; "" if it can.
        unit: the unit roundoff of the narrowest floats that it computes with, 8-bit ones aside.
    """

    name: str
    donated: frozenset[int]
    results: tuple[str, ...]
    effect: str
    unit: float

    @staticmethod
    def of(module: ir.Module) -> "StepFacts":
        """Read a module that jit lowered."""
        main = next(op for op in module.body.operations if _symbol(op) == "main").operation
        given = _dicts(main, "arg_attrs", len(main.regions[0].blocks[0].arguments))
        made = _dicts(main, "res_attrs", 0)
        text = module.operation.get_asm(enable_debug_info=False)
        return StepFacts(
            _symbol(module.operation) or "module",
            frozenset(i for i, d in enumerate(given) if any(name in d for name in _DONATED)),
            tuple(ir.StringAttr(d[_NAME]).value if _NAME in d else "" for d in made),
            _effect_in(text),
            max((_UNITS.get(name, 0.0) for name in set(_FLOAT.findall(text))), default=0.0),
        )

    def path_of(self, place: int) -> str:
        """Return where a result stands in the output tree."""
        found = self.results[place] if place < len(self.results) else ""
        return found or f"output {place}"

    def unit_of(self, dtype: Any) -> float:
        """Return the unit roundoff of what results of a type are computed in."""
        return max(float(jnp.finfo(dtype).eps) / 2, self.unit)


def _symbol(op: Any) -> str:
    attributes = op.operation.attributes
    return ir.StringAttr(attributes["sym_name"]).value if "sym_name" in attributes else ""


def _dicts(main: Any, name: str, count: int) -> Sequence[Any]:
    """Return the attributes of every argument or result of the main function."""
    if name not in main.attributes:
        return [{}] * count
    return [ir.DictAttr(a) for a in ir.ArrayAttr(main.attributes[name])]


def _effect_in(text: str) -> str:
    for op, effect in _EFFECTS.items():
        if re.search(rf'{re.escape(op)}[" ]', text):
            return effect
    for target in _CALL.findall(text):
        if target not in _HARMLESS:
            return f"custom call {target} has side effects"
    return ""
