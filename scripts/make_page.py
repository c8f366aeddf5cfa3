"""Makes the report page of one GPT2-S-MoE step on 8 x H100, and a picture of it.

    python scripts/make_page.py docs/report-page.png --html page.html

Compiled for GPUs that are not there; nothing is measured. The picture needs Chromium.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp

import lancet_jax
from lancet_jax import nn

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--virtual-time-budget=3000",
)  # fmt: skip


def main() -> None:
    """Compile the step, write its page, photograph it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("--html", type=Path, help="keep the page here")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--size", default="1280,840", help="of the window, in pixels")
    args = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("make_page: no Chromium here\n  try: apt-get install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        page = args.html or Path(folder) / "page.html"
        report(args.layers).save_html(page)
        photograph(browser, page, args.picture, args.size, folder)


def report(layers: int) -> lancet_jax.Report:
    """Compile the step as `make_picture.py` does."""
    mesh = lancet_jax.aot.target("h100:1x8").mesh(expert=8)
    config = replace(nn.preset("gpt2_s_moe"), layers=layers, dtype=jnp.bfloat16)
    optimizer = nn.sgd_momentum()
    step = lancet_jax.jit(nn.make_train_step(config, mesh, optimizer), donate_argnums=0)
    state, batch = nn.abstract_state(config, mesh, optimizer), nn.abstract_batch(config, mesh)
    return step.lower(state, batch).compile().report()


def photograph(browser: str, page: Path, picture: Path, size: str, folder: str) -> None:
    """Open the page in a fresh browser and save what a window of `size` shows.

    Args:
        browser: command of a Chromium.
        page: the HTML file.
        picture: the PNG to write.
        size: width and height, as `1280,900`.
        folder: an empty one, for the browser's profile.
    """
    command = [browser, *_FLAGS, f"--user-data-dir={folder}/profile", f"--window-size={size}",
               f"--screenshot={picture.resolve()}", page.resolve().as_uri()]  # fmt: skip
    subprocess.run(command, check=True, timeout=120, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
