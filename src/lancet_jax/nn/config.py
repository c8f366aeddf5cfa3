"""The configuration of a MoE GPT model and of its train step, and named presets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import jax.numpy as jnp
from jax.typing import DTypeLike

from lancet_jax.nn.dispatch import DISPATCHERS
from lancet_jax.nn.dropless import EXCHANGES
from lancet_jax.nn.gates import Gate, TokenGate, gate_named

_ACTIVATIONS = ("relu", "gelu", "silu")
_COUNTS = (
    "vocab",
    "seq_len",
    "layers",
    "model",
    "heads",
    "moe_every",
    "experts_per_device",
    "batch_per_device",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MoEGPTConfig:
    """A GPT-2 model in which some blocks have a MoE layer in place of the MLP.

    Attributes:
        vocab: Vocabulary size.
        seq_len: Longest sequence, in tokens.
        layers: Number of blocks.
        model: Width of the residual stream.
        heads: Attention heads; divides `model`.
        hidden: Width inside MLPs and experts; None means `4 * model`.
        moe_every: Blocks 0, `moe_every`, `2 * moe_every`, ... have a MoE layer.
        experts_per_device: Experts on each device of the expert axis.
        capacity_factor: Room in an expert's buffer over the room a balanced load needs; None for
            dropless layers, which keep every choice.
        gate: A gate's name (see `GATES`) or a gate.
        top_k: Experts a token for a gate given by name; None means the gate's own number.
        dispatch: How tokens reach the expert buffers: by scatter or by one-hot mask. Of dropless
            layers, how rows are exchanged: `ragged` sends filled rows only (GPU, TPU), `padded`
            room for all of them (any backend, same results).
        activation: The experts' activation. The dense MLPs always use GELU, as GPT-2 does.
        dtype: Type of activations. Routing, softmax and loss are float32 whatever it is.
        param_dtype: Type of parameters.
        balance_weight: Factor of the load-balance loss in the objective.
        routing_seed: Seed of gates that draw.
        batch_per_device: Sequences on each device in a step.
        data_axis: Mesh axis that replicates experts; None if there is none.
        expert_axis: Mesh axis that splits experts; None keeps all experts on each device.

    Raises:
        ValueError: If a number is not positive, `heads` does not divide `model`, a name is
            unknown, the two axes have one name, or a dropless layer is asked for by halves: it
            wants a dropless `dispatch`, no `capacity_factor`, and a gate whose tokens choose.
    """

    vocab: int
    seq_len: int
    layers: int
    model: int
    heads: int
    hidden: int | None = None
    moe_every: int = 2
    experts_per_device: int = 2
    capacity_factor: float | None = 1.0
    gate: str | Gate = "switch"
    top_k: int | None = None
    dispatch: Literal["scatter", "one_hot", "ragged", "padded"] = "scatter"
    activation: Literal["relu", "gelu", "silu"] = "relu"
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32
    balance_weight: float = 0.01
    routing_seed: int = 0
    batch_per_device: int = 8
    data_axis: str | None = None
    expert_axis: str | None = "expert"

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_names()
        self._check_dropless()

    @property
    def width(self) -> int:
        """Width inside MLPs and experts."""
        return self.hidden if self.hidden is not None else 4 * self.model

    @property
    def routing_gate(self) -> Gate:
        """The gate that `gate` and `top_k` describe."""
        if isinstance(self.gate, str):
            return gate_named(self.gate, self.top_k)
        if self.top_k not in (None, self.gate.k):
            raise ValueError(f"top_k={self.top_k}, but {self.gate!r} has k={self.gate.k}")
        return self.gate

    def _check_numbers(self) -> None:
        numbers = {name: getattr(self, name) for name in _COUNTS}
        numbers |= {"hidden": self.width, "top_k": 1 if self.top_k is None else self.top_k}
        numbers |= {"capacity_factor": 1 if self.capacity_factor is None else self.capacity_factor}
        for name, value in numbers.items():
            if value <= 0:
                raise ValueError(f"{name} must be positive, not {value}")
        if self.model % self.heads:
            raise ValueError(f"heads={self.heads} does not divide model={self.model}")

    def _check_names(self) -> None:
        ways = (*DISPATCHERS, *EXCHANGES)
        if self.dispatch not in ways:
            raise ValueError(f"no dispatch {self.dispatch!r}; choose one of {', '.join(ways)}")
        if self.activation not in _ACTIVATIONS:
            raise ValueError(
                f"no activation {self.activation!r}; choose one of {', '.join(_ACTIVATIONS)}"
            )
        if self.data_axis is not None and self.data_axis == self.expert_axis:
            raise ValueError(f"data_axis and expert_axis are both {self.data_axis!r}")

    def _check_dropless(self) -> None:
        gate, dropless = self.routing_gate, self.capacity_factor is None
        if dropless != (self.dispatch in EXCHANGES):
            ways = ", ".join(EXCHANGES if dropless else DISPATCHERS)
            raise ValueError(
                f"capacity_factor={self.capacity_factor} wants dispatch to be one of {ways}, "
                f"not {self.dispatch!r}"
            )
        if dropless and not isinstance(gate, TokenGate):
            raise ValueError(
                f"capacity_factor=None keeps every choice of a token, but with {gate!r} the "
                "experts choose"
            )


def tiny(**overrides: Any) -> MoEGPTConfig:
    """Two blocks of width 32 over bytes: compiles in seconds on CPU."""
    fields: dict[str, Any] = {
        "vocab": 256,
        "seq_len": 32,
        "layers": 2,
        "model": 32,
        "heads": 4,
        "batch_per_device": 2,
    }
    return MoEGPTConfig(**(fields | overrides))


def gpt2_s_moe(**overrides: Any) -> MoEGPTConfig:
    """GPT2-S-MoE: 12 blocks of width 768, six of them MoE.

    `batch_per_device` is what Lancet ran on V100 (16); on A100 it ran 48.

    Source: Lancet (Jiang et al., 2024), section 7; heads, capacity factor and batch from its code,
    which discards the balance loss.
    """
    return _gpt2(**({"layers": 12, "model": 768, "batch_per_device": 16} | overrides))


def gpt2_l_moe(**overrides: Any) -> MoEGPTConfig:
    """GPT2-L-MoE: 24 blocks of width 1024, twelve of them MoE.

    `batch_per_device` is what Lancet ran on V100 (8); on A100 it ran 24.

    Source: Lancet (Jiang et al., 2024), section 7; heads, capacity factor and batch from its code,
    which discards the balance loss.
    """
    return _gpt2(**({"layers": 24, "model": 1024, "batch_per_device": 8} | overrides))


PRESETS: Mapping[str, Callable[..., MoEGPTConfig]] = MappingProxyType(
    {"tiny": tiny, "gpt2_s_moe": gpt2_s_moe, "gpt2_l_moe": gpt2_l_moe}
)
"""The presets of this module by name; read-only."""


def preset(name: str, **overrides: Any) -> MoEGPTConfig:
    """The configuration called `name`, with some fields replaced.

    Raises:
        ValueError: If there is no such preset, or the result is no valid configuration.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name](**overrides)


def _gpt2(**fields: Any) -> MoEGPTConfig:
    shared: dict[str, Any] = {"vocab": 50304, "seq_len": 512, "heads": 16, "balance_weight": 0.0}
    return MoEGPTConfig(**(shared | fields))
