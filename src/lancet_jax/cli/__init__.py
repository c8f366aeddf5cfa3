"""The command line: one file per command.

lancet-jax demo | inspect FILE | plan FILE -o plan.json | opt FILE -o out.mlir |
view FILE -o page.html | calibrate FILE -o costs.json | doctor
"""

from lancet_jax.cli.app import main as main
