"""XLA options that a step is compiled with besides the user's own."""

from collections.abc import Mapping, Sequence
from typing import Any

from lancet_jax.seams import backends, cuda
from lancet_jax.seams.compiling import XlaOptions

_APART: Mapping[str, tuple[str, XlaOptions]] = {
    "kernels": ("multi-output fusion", {"xla_disable_hlo_passes": "multi_output_fusion"}),
    "products": ("dot-merger", {"xla_gpu_dot_merger_threshold_mb": 0}),
    "exchanges": (
        "combined exchanges",
        {f"xla_gpu_{kind}_combine_threshold_bytes": 0
         for kind in ("all_gather", "all_reduce", "reduce_scatter")},
    ),
}  # fmt: skip
"""By what is tied together: what XLA does that ties it, and the options that keep XLA from it."""


def ways_apart(tied: Sequence[str], given: XlaOptions) -> tuple[tuple[XlaOptions, str], ...]:
    """Return sets of XLA options that keep apart what it ties, with what each leaves out.

    Args:
        tied: what is tied: `kernels` (XLA:GPU puts those that read the same tensor into one, which
            saves traffic, several percent of a step), `products` (those that share an operand
            become one), `exchanges` (gradient sums, gathers of weights). XLA 0.12 fuses no kernels
            horizontally any more (`tests/contract/test_xla_ties.py`).
        given: options that are set already.
    """
    useful = [
        (options, what) for kind, (what, options) in _APART.items()
        if kind in tied and not options.items() <= given.items()
    ]  # fmt: skip
    ways = [(options, f"without {what}") for options, what in useful]
    if len(useful) > 1:
        together = {name: value for options, _ in useful for name, value in options.items()}
        ways.append((together, f"without {' and '.join(what for _, what in useful)}"))
    return tuple(ways)


def split_options(devices: Sequence[Any], is_split: bool) -> dict[str, Any]:
    """XLA options that keep XLA:GPU from undoing a split.

    Its dot-merger would put the products of several parts that share a weight into one, which then
    waits for all exchanges. And a module with ragged exchanges is scheduled with no lookahead
    unless asked to.
    """
    if devices[0].platform != "gpu" or not is_split:
        return {}
    return {
        "xla_gpu_dot_merger_threshold_mb": 0,
        "xla_gpu_enable_latency_hiding_scheduler": True,
    }


def compile_only_options(devices: Sequence[Any]) -> dict[str, Any]:
    """XLA options without which nothing compiles, or toy kernels are chosen, without a GPU.

    XLA prints its costs there whatever the pipeline, so that all are priced alike.
    """
    if devices[0].platform != "gpu" or not backends.is_compile_only(devices[0]):
        return {}
    options: dict[str, Any] = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
    if (directory := cuda.ptxas_directory()) is not None:
        options["xla_gpu_cuda_data_dir"] = str(directory)
    return options | cost_options(devices)


def cost_options(devices: Sequence[Any]) -> dict[str, Any]:
    """XLA options that make it print its own costs, on the devices that it has costs for."""
    capability = getattr(devices[0], "compute_capability", "")
    kind = devices[0].device_kind
    modern = any(name in kind for name in ("H100", "H200", "B200", "GB200", "B300"))
    if devices[0].platform == "gpu" and (modern or str(capability) >= "9"):
        return {"xla_gpu_collect_cost_model_stats": True}
    return {}
