"""What one device can do: rates, memory, launch time, and what XLA must know to compile for it.

Profiles are JSON files in `profiles/`; every figure's origin stands in `sources`. None was measured
by this project: they are published figures and stated assumptions.
"""

from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

import msgspec

from hlo_passes.cost.links import LinkTier
from hlo_passes.errors import InputError, OptionError

MATMUL_RATES = ("f64", "f32", "tf32", "bf16", "f16", "f8", "i8")
"""Rates of matrix products that every profile names, by the type of the operands."""

VECTOR_RATES = ("f64", "f32")
"""Rates of everything else; narrower types are computed as f32."""

EFFICIENCIES = ("matmul", "vector", "hbm")
"""Shares that every profile names; op kinds may have an HBM share of their own."""


class DeviceProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of device and the links that it usually comes with.

    Attributes:
        name: as a user writes it, `h100`.
        device_kinds: what JAX's `device.device_kind` prints; the first is the one compiled for.
        compute_capability: CUDA's, `9.0`; "" for what is no CUDA device.
        matmul_flops: FLOP/s of dense matrix products by operand type. `f32` is without TF32,
            `tf32` with it; a type without hardware of its own has the rate it is computed at.
        vector_flops: FLOP/s of everything else, `f32` and `f64`.
        hbm_bytes_per_s: bytes/s of device memory.
        memory_bytes: bytes of device memory.
        launch_us: us that every kernel takes beside its work.
        decide_us: us that the device idles while the host reads a number from it and decides
            whether a loop goes on.
        efficiency: shares of the peaks that kernels reach: `matmul` and `vector` of FLOP/s, `hbm`
            of bytes/s; an op kind (`sort`) instead of `hbm` where it reaches less.
        per_node: devices of a full node; 0 if there is no limit.
        tiers: links, innermost first.
        sources: origin of the figures, by field.
        sm_count, fpus_per_core, shared_memory_per_core, shared_memory_per_block_optin, l2_bytes,
            clock_ghz: what XLA's target config asks for; 0 for what is no CUDA device.
    """

    name: str
    device_kinds: tuple[str, ...]
    compute_capability: str = ""
    matmul_flops: dict[str, float]
    vector_flops: dict[str, float]
    hbm_bytes_per_s: float
    memory_bytes: int
    launch_us: float
    decide_us: float = 0.0
    efficiency: dict[str, float]
    per_node: int
    tiers: tuple[LinkTier, ...]
    sources: dict[str, str]
    sm_count: int = 0
    fpus_per_core: int = 0
    shared_memory_per_core: int = 0
    shared_memory_per_block_optin: int = 0
    l2_bytes: int = 0
    clock_ghz: float = 0.0

    def __post_init__(self) -> None:
        for table, needed in (
            (self.matmul_flops, MATMUL_RATES),
            (self.vector_flops, VECTOR_RATES),
            (self.efficiency, EFFICIENCIES),
        ):
            if missing := [name for name in needed if name not in table]:
                raise ValueError(f"no figure for {', '.join(missing)}")
        rates = [*self.matmul_flops.values(), *self.vector_flops.values(), self.hbm_bytes_per_s]
        if min(rates) <= 0 or self.memory_bytes <= 0:
            raise ValueError("rates and memory must be above 0")
        if min(self.launch_us, self.decide_us) < 0:
            raise ValueError("launch_us and decide_us must be at least 0")
        if not all(0 < share <= 1 for share in self.efficiency.values()):
            raise ValueError("efficiency is a share above 0, at most 1")
        if not self.device_kinds or not self.tiers:
            raise ValueError("needs a device kind and a tier of links")

    def flops_per_s(self, dtype: str, *, matmul: bool, tf32: bool = True) -> float:
        """Return the peak FLOP/s for an element type.

        Args:
            dtype: StableHLO's name.
            matmul: whether it is a matrix product.
            tf32: whether products of f32 may use TF32, as XLA does unless a program asks for
                more precision.
        """
        if not matmul:
            return self.vector_flops["f64" if dtype in ("f64", "c128") else "f32"]
        return self.matmul_flops["tf32" if tf32 and dtype in ("f32", "c64") else _rate_name(dtype)]

    def hbm_share(self, kind: str) -> float:
        """Return the share of `hbm_bytes_per_s` that ops of `kind` reach."""
        return self.efficiency.get(kind, self.efficiency["hbm"])


def _rate_name(dtype: str) -> str:
    """Return which rate of `MATMUL_RATES` products of `dtype` run at."""
    if dtype in ("f64", "c128"):
        return "f64"
    if dtype in ("bf16", "f16"):
        return dtype
    if dtype in ("i1", "i2", "i4", "i8", "ui2", "ui4", "ui8"):
        return "i8"
    narrow = dtype.startswith(("f8", "f6", "f4"))
    return "f8" if narrow else "f32"


def profile_names() -> tuple[str, ...]:
    """Return the names of the shipped profiles."""
    names = (entry.name for entry in _profiles().iterdir())
    return tuple(
        sorted(
            name.removesuffix(".json")
            for name in names
            if name.endswith(".json") and not name.startswith("exchange-")
        )
    )


def load_profile(name: str) -> DeviceProfile:
    """Return the shipped profile called `name`.

    Raises:
        OptionError: if there is none, naming those that there are.
    """
    if name not in profile_names():
        raise OptionError(
            f"device {name!r}",
            "no profile of that name",
            f"use one of {', '.join(profile_names())}",
        )
    return _load(name)


def profile_of_kind(device_kind: str) -> DeviceProfile:
    """Return the shipped profile of what JAX calls `device_kind`.

    Raises:
        OptionError: if no profile describes it, naming the kinds that are known.
    """
    profiles = [_load(name) for name in profile_names()]
    for profile in profiles:
        if device_kind in profile.device_kinds:
            return profile
    known = "; ".join(f"{p.name} ({', '.join(p.device_kinds)})" for p in profiles)
    raise OptionError(
        f"device kind {device_kind!r}", "no profile describes it",
        f"name the target that is nearest, as target='h100:1x8'; known are {known}",
    )  # fmt: skip


def profile_from_json(data: bytes, where: str = "<profile>") -> DeviceProfile:
    """Read a profile of one's own.

    Raises:
        InputError: if `data` is no profile, naming the field.
    """
    try:
        return msgspec.json.decode(data, type=DeviceProfile)
    except msgspec.MsgspecError as error:
        raise InputError(
            where, f"not a device profile: {error}", "start from hlo_passes/cost/profiles/h100.json"
        ) from None


def shipped(file_name: str) -> bytes | None:
    """Return the bytes of a file in `profiles/`; None if there is none of that name."""
    entry = _profiles().joinpath(file_name)
    return entry.read_bytes() if entry.is_file() else None


def _profiles() -> Traversable:
    return files("hlo_passes.cost").joinpath("profiles")


@cache
def _load(name: str) -> DeviceProfile:
    data = shipped(f"{name}.json")
    assert data is not None
    return profile_from_json(data, f"{name}.json")
