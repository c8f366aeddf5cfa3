"""Draws the README's picture: one GPT2-S-MoE step on 8 x H100, as XLA schedules it and as we do.

    python -m scripts.make_picture docs/before-after.svg

Compiled for GPUs that are not there; compute and exchanges at XLA's own costs, nothing measured.
"""

import argparse

import lancet_jax
from lancet_jax.report import figure
from scripts.gpu_steps import model_step


def main() -> None:
    """Compile the step and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path")
    parser.add_argument("--layers", type=int, default=4)
    args = parser.parse_args()
    gpus = lancet_jax.aot.target("h100:1x8")
    compiled, _ = model_step("gpt2_s_moe", gpus, args.layers, dtype="bfloat16").compile("dw")
    title = f"GPT2-S-MoE, {args.layers} layers, 8 x H100, from XLA's final schedule and costs"
    figure.save(compiled.report(), args.path, title=title)


if __name__ == "__main__":
    main()
