"""Draws the README's picture: one GPT2-S-MoE step on 8 x H100, as XLA schedules it and as we do.

    python scripts/make_picture.py docs/before-after.svg

Compiled for GPUs that are not there; compute and exchanges at XLA's own costs, nothing measured.
"""

import argparse
from dataclasses import replace

import jax.numpy as jnp

import lancet_jax
from lancet_jax import nn
from lancet_jax.report import figure


def main() -> None:
    """Compile the step and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path")
    parser.add_argument("--layers", type=int, default=4)
    args = parser.parse_args()
    mesh = lancet_jax.aot.target("h100:1x8").mesh(expert=8)
    config = replace(nn.preset("gpt2_s_moe"), layers=args.layers, dtype=jnp.bfloat16)
    optimizer = nn.sgd_momentum()
    step = lancet_jax.jit(nn.make_train_step(config, mesh, optimizer), donate_argnums=0)
    compiled = step.lower(
        nn.abstract_state(config, mesh, optimizer), nn.abstract_batch(config, mesh)
    ).compile()
    title = f"GPT2-S-MoE, {args.layers} layers, 8 x H100, from XLA's final schedule and costs"
    figure.save(compiled.report(), args.path, title=title)


if __name__ == "__main__":
    main()
