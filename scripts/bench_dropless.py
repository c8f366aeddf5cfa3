"""Dropless steps, uncut and cut along the batch, compiled for GPUs that are not there.

    python -m scripts.bench_dropless --target h100:8x8

Modelled, not measured: the compiled schedule, its compute priced by XLA's own cost model, its
exchanges by the links of the target, or by XLA's table within a node, with a balanced load. The
buffer at the experts holds the worst case, all rows of all devices, and XLA (JAX 0.12) multiplies
all of it by the weights of every expert: most of the compute here is of rows that nobody sent.
"""

import argparse
from collections.abc import Iterator

import jax.numpy as jnp

import lancet_jax
from hlo_passes.schedule.timeline import Timeline
from lancet_jax import nn

PIPELINES = ("off", "dw", "full")


def main() -> None:
    """Compile and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="h100:8x8")
    parser.add_argument("--pipelines", default=";".join(PIPELINES))
    parser.add_argument("--set", default="layers=2,model=1024,heads=16,seq_len=512",
                        help="fields of the model, all numbers")  # fmt: skip
    args = parser.parse_args()
    fields = {k: int(v) for k, v in (pair.split("=") for pair in args.set.split(","))}
    print(f"{args.target}, {args.set}; us")
    print("| pipeline | parts | step | compute | exchanges | exposed | of all-to-alls | drift |")
    print("|---|---|---|---|---|---|---|---|")
    for pipeline in args.pipelines.split(";"):
        for cells in rows(args.target, pipeline, fields):
            print(f"| {' | '.join(cells)} |", flush=True)


def rows(target: str, pipeline: str, fields: dict[str, int]) -> Iterator[list[str]]:
    """Yield what a compiled step costs.

    Args:
        target: GPUs, as `h100:1x8`.
        pipeline: preset or passes.
        fields: what is not as in the tiny preset.
    """
    config = nn.preset("tiny", capacity_factor=None, dispatch="ragged", gate="top_k",
                       dtype=jnp.bfloat16, **fields)  # fmt: skip
    gpus = lancet_jax.aot.target(target)
    mesh, optimizer = gpus.mesh(), nn.sgd_momentum()
    step = lancet_jax.jit(
        nn.make_train_step(config, mesh, optimizer), pipeline=pipeline, on_unsupported="raise"
    )
    lowered = step.lower(
        nn.abstract_state(config, mesh, optimizer), nn.abstract_batch(config, mesh)
    )
    compiled = lowered.compile()
    plan = lowered.plan
    parts = str(plan.splits[0].k) if plan.splits else "-"
    yield [pipeline, parts, *_figures(compiled.schedule()), str(compiled.drift().moved)]


def _figures(timeline: Timeline) -> list[str]:
    total = sum(window.us for window in timeline.windows)
    moved = sum(w.exposed_us for w in timeline.windows if "all_to_all" in w.kind)
    figures = timeline.makespan_us, timeline.compute_us, total, timeline.exposed_us, moved
    return [f"{us:,.0f}" for us in figures]


if __name__ == "__main__":
    main()
