"""The command line: one file per command.

lancet-jax inspect | diff | check | whatif FILE    what a module exposes, here or elsewhere
lancet-jax view FILE -o page.html                  look at it
lancet-jax calibrate FILE -o costs.json            measure it
lancet-jax plan FILE -o plan.json | opt FILE -o out.mlir | passes
lancet-jax demo | doctor
"""

from lancet_jax.cli.app import main as main
