"""The command line: one file per command.

lancet-jax inspect | diff | check | whatif FILE    what a module exposes, here or elsewhere
lancet-jax view FILE -o page.html                  look at it
lancet-jax calibrate FILE -o costs.json            measure it
lancet-jax plan FILE -o plan.json | opt FILE -o out.mlir | passes
lancet-jax demo | doctor

A command reads its files and options (`files`, `options`), asks the library, and prints what
`report` makes of the answer: text, JSON, a page. Errors that people can mend end in one message and
exit code 2; a limit that is not kept ends in 1.

May import all of `lancet_jax` and `hlo_passes`; nothing imports it.

Terms:
    module file: StableHLO, HLO or a proto, as JAX or XLA wrote it; or a folder with one in it.
    target: the devices that a module is priced for, as in `h100:8x8`.
    gate: limits that a step has to keep, for continuous integration.
"""

from lancet_jax.cli.app import main as main
