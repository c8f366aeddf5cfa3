"""All tables, in the order in which they are drawn."""

from tests.generator.across import ACROSS
from tests.generator.choices import CHOICES
from tests.generator.combine import COMBINE
from tests.generator.counters import COUNTERS
from tests.generator.dense import DENSE, RESIDUALS
from tests.generator.dispatch import DISPATCH
from tests.generator.exchanges import BACK, THERE
from tests.generator.experts import EXPERTS
from tests.generator.losses import AUXILIARY, LOSSES, WATCH
from tests.generator.metrics import METRICS
from tests.generator.mixers import MIXERS, SPOTS
from tests.generator.optimizers import OPTIMIZERS
from tests.generator.places import PLACES, TURNS
from tests.generator.priorities import PRIORITIES
from tests.generator.scores import SCORES
from tests.generator.sizes import MESHES, SIZES
from tests.generator.tables import Table
from tests.generator.wrappers import ACCUMULATE, LAYERS, NEST, REMAT, SPREADS, SYNC, UNCHECKED

CUTS = Table({
    "region2": "split-region{k=2},schedule-dw",
    "region2_alone": "split-region{k=2}",
    "region4": "split-region{k=4},schedule-dw",
    "exchange2": "split-exchange{k=2},schedule-dw",
    "forward2": "split-region{k=2,direction=forward},schedule-dw",
}, {
    "exchange4": "split-exchange{k=4}",
    "unrolled2": "unroll-loops{k=2},split-region{k=2},schedule-dw",
    "both2": "split-exchange{k=2},split-region{k=2},schedule-dw",
})  # fmt: skip
"""Pipelines that cut where they can, whether it pays or not."""

DTYPES = Table(
    {"float32": "float32"},
    {"float64": "float64", "bfloat16": "bfloat16"},
    chance=0.1,
    needs={"bfloat16": {"spread": UNCHECKED}},
)

PARTS: dict[str, Table] = {
    "cut": CUTS, "mesh": MESHES, "size": SIZES, "spread": SPREADS, "dtype": DTYPES,
    "k": Table({"1": 1, "2": 2}, {"4": 4}), "layers": LAYERS, "remat": REMAT, "nest": NEST, "accumulate": ACCUMULATE,
    "across": ACROSS, "dense": DENSE, "scores": SCORES, "choices": CHOICES, "priority": PRIORITIES,
    "counter": COUNTERS, "place": PLACES, "turn": TURNS,
    "weigh": Table({"after": "after", "before": "before"}, {"beside": "beside", "sent_aside": "sent_aside", "named_aside": "named_aside"}, chance=0.1, plainness=0.8),
    "dispatch": DISPATCH, "there": THERE, "experts": EXPERTS, "mixer": MIXERS, "spot": SPOTS,
    "back": BACK, "combine": COMBINE, "residual": RESIDUALS, "auxiliary": AUXILIARY, "watch": WATCH,
    "metrics": METRICS, "loss": LOSSES, "sync": SYNC, "optimizer": OPTIMIZERS,
}  # fmt: skip
