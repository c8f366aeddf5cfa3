"""Tensor types, spelled once for StableHLO and HLO.

StableHLO writes `tensor<8x16xi32>`, HLO writes `s32[8,16]{1,0}`. Everything above `ir` sees a
`TensorType` with StableHLO's element names; complex ones are `c64` and `c128`, as in HLO.
"""

import math
import re
from dataclasses import dataclass

_BITS = {
    "i1": 8, "i2": 2, "i4": 4, "i8": 8, "i16": 16, "i32": 32, "i64": 64,
    "ui1": 1, "ui2": 2, "ui4": 4, "ui8": 8, "ui16": 16, "ui32": 32, "ui64": 64,
    "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128,
    "token": 0, "opaque": 0,
}  # fmt: skip
"""Bits per element in memory; a boolean takes a byte."""

_COMPLEX = {"complex<f32>": "c64", "complex<f64>": "c128"}
_HLO_TO_MLIR = {"pred": "i1", "s": "i", "u": "ui"}


_HLO_DTYPE = re.compile(
    r"pred|[su](?:1|2|4|8|16|32|64)|bf16|f(?:16|32|64)|f[468]e\dm\d\w*|c64|c128|token|opaque"
)


def element_bits(dtype: str) -> int:
    """Return the bits that one element of `dtype` takes in memory.

    The many 8-, 6- and 4-bit float formats are recognised by the digits in their names.

    Raises:
        ValueError: if `dtype` is no element type of StableHLO.
    """
    if dtype in _BITS:
        return _BITS[dtype]
    if dtype.startswith("f") and dtype[1:2].isdigit():
        return int(dtype[1])
    raise ValueError(f"unknown element type {dtype!r}")


def from_hlo_dtype(dtype: str) -> str:
    """Translate HLO's element name (`s32`, `pred`) to StableHLO's (`i32`, `i1`)."""
    if dtype == "pred":
        return "i1"
    if dtype[0] in "su" and dtype[1:].isdigit():
        return _HLO_TO_MLIR[dtype[0]] + dtype[1:]
    return dtype.lower()


def from_mlir_dtype(dtype: str) -> str:
    """Translate MLIR's element name: `complex<f32>` is `c64`, as in HLO."""
    return _COMPLEX.get(dtype, dtype)


def is_hlo_dtype(dtype: str) -> bool:
    """Whether HLO has an element type of that name."""
    return bool(_HLO_DTYPE.fullmatch(dtype))


@dataclass(frozen=True, slots=True)
class TensorType:
    """Shape and element type of one tensor; `()` is a scalar."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes in memory, without padding."""
        return (self.elements * element_bits(self.dtype) + 7) // 8

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"
