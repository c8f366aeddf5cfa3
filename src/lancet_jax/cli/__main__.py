"""`python -m lancet_jax.cli` is `lancet-jax`."""

from lancet_jax.cli import main

if __name__ == "__main__":
    main()
