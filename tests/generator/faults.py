"""Faults that cut steps had once, each as the recipe that has its idiom and nothing else."""

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        recipe: a step that has it.
        choices: what of the recipe is the idiom.
        is_in: whether the idiom stands in the step's StableHLO.
    """

    recipe: str
    choices: tuple[str, ...]
    is_in: Callable[[str], bool]


def _has(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.search(pattern, text) is not None


def _peers(text: str) -> bool:
    """Whether all-to-alls are over other devices, or in another order."""
    groups = re.findall(r'all_to_all"\(.*?replica_groups = (.*?), split_count', text)
    return len(set(groups)) > 1


def _dims(*wanted: tuple[int, int]) -> Callable[[str], bool]:
    def is_in(text: str) -> bool:
        exchanges = re.findall(r'"stablehlo.all_to_all"\(.*', text)
        found = set()
        for line in exchanges:
            concat = re.search(r"concat_dimension = (\d)", line)
            split = re.search(r"split_dimension = (\d)", line)
            if concat and split:
                found.add((int(split[1]), int(concat[1])))
        return set(wanted) <= found

    return is_in


_TILED = "choices=lax_argmax counter=inclusive"

FAULTS = {
    "dot_over_experts": Fault(
        f"{_TILED} mixer=dot_over_experts", ("mixer=dot_over_experts",),
        _has(r"dot_general .*contracting_dims = \[0\] x \[0\].* : \(tensor<2x2xf32>"),
    ),
    "reversed_experts": Fault(
        f"{_TILED} mixer=reversed_experts", ("mixer=reversed_experts",),
        _has(r"stablehlo.reverse .*dims = \[0\]"),
    ),
    "rolled_experts": Fault(
        f"{_TILED} mixer=rolled_experts", ("mixer=rolled_experts",),
        _has(r"func private @_?roll"),
    ),
    "sorted_experts": Fault(
        f"{_TILED} mixer=sorted_experts", ("mixer=sorted_experts",),
        _has(r"stablehlo.sort.*dimension = 0"),
    ),
    "experts_as_features": Fault(
        f"{_TILED} mixer=experts_as_features", ("mixer=experts_as_features",),
        _has(r"reshape .*tensor<8x2x12xf32>\) -> tensor<8x24xf32>"),
    ),
    "mean_of_experts": Fault(
        f"{_TILED} mixer=mean_of_experts", ("mixer=mean_of_experts",),
        _has(r"reduce.*across dimensions = \[0\] : \(tensor<2x8x12xf32>"),
    ),
    "back_over_turned_axes": Fault(
        f"{_TILED} mesh=ab22 back=back_over_turned_axes", ("back=back_over_turned_axes",), _peers,
    ),
    "back_over_one_axis": Fault(
        f"{_TILED} mesh=ab22 back=back_over_one_axis", ("back=back_over_one_axis",), _peers,
    ),
    "back_over_data": Fault(
        f"{_TILED} mesh=data2_ep4 back=back_over_data", ("back=back_over_data",), _peers,
    ),
    "back_along_experts": Fault(
        f"{_TILED} size=square back=back_along_experts", ("back=back_along_experts",),
        _dims((0, 1), (0, 0)),
    ),
    "back_beside_slots": Fault(
        f"{_TILED} back=back_beside_slots", ("back=back_beside_slots",), _dims((0, 1), (1, 2)),
    ),
    "back_in_half_groups": Fault(
        f"{_TILED} back=back_in_half_groups", ("back=back_in_half_groups",), _peers,
    ),
    "promised_for_less": Fault(
        f"{_TILED} place=promised_for_less dispatch=flat combine=flat",
        ("place=promised_for_less",), _has(r"unique_indices = true[\s\S]*?tensor<16xi32>"),
    ),
    "cut_off": Fault(
        f"{_TILED} place=flat_cut_off dispatch=lax_scatter combine=lax_gather",
        ("place=flat_cut_off",), _has(r"dense<-5.000000e-01>"),
    ),
    "too_wide": Fault(
        f"{_TILED} place=too_wide", ("place=too_wide",), _has(r"-> tensor<16x1xi16>"),
    ),
    "without_sign": Fault(
        f"{_TILED} place=without_sign", ("place=without_sign",), _has(r"-> tensor<16x1xui8>"),
    ),
    "minus_one": Fault(f"{_TILED} place=minus_one", ("place=minus_one",), _has(r"dense<-1>")),
    "nan": Fault(f"{_TILED} place=nan", ("place=nan",), _has(r"dense<0x7FC00000>")),
    "into_the_next": Fault(
        f"{_TILED} place=into_the_next dispatch=flat combine=flat", ("place=into_the_next",),
        lambda text: "tensor<16x1xi1>, tensor<16x1xi32>\n    return" not in text,
    ),
    "float8": Fault(
        "choices=lax_argmax size=long scores=crowded counter=float8 dispatch=pairs_added"
        " metrics=slots", ("counter=float8",), _has(r"f8E4M3FN"),
    ),
    "overflowing": Fault(
        "choices=overflowing metrics=slots", ("choices=overflowing",), _has(r"dense<65535>"),
    ),
    "permuted": Fault(
        f"{_TILED} turn=permuted", ("turn=permuted",),
        _has(r"transpose .*dims = \[1, 0\] : \(tensor<4x4xi32>"),
    ),
    "nan_scores": Fault(
        "scores=nan_rows choices=threshold", ("scores=nan_rows", "choices=threshold"),
        _has(r"compare GE, .*FLOAT"),
    ),
}  # fmt: skip
