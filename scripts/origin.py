"""Where a figure comes from: machine, versions, date and commit."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any


def origin() -> dict[str, Any]:
    """Return what a reader of a measurement has to know to make it again."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": f"{os.cpu_count()} cores {platform.machine()}".replace("_", "-"),
        **versions("jax", "jaxlib", "numpy"),
    }


def describe(found: dict[str, Any]) -> str:
    """Say it in a sentence; the machine aside."""
    return (
        f"jax {found['jax']}, jaxlib {found['jaxlib']}, numpy {found['numpy']}; {found['date']}, "
        f"commit {found['commit'] or 'unknown'}"
    )


def versions(*names: str) -> dict[str, str]:
    """Return the versions of packages."""
    return {name: version(name) for name in names}


def commit() -> str:
    """Return the commit that the sources are at, with a + if they were changed since.

    Nothing where there is no repository.
    """

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "src", "hlo_passes", "scripts")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
