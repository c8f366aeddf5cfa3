"""A folder with what is needed to see why a cut step gave other numbers. No data of the user's."""

import json
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import jax
from jaxlib.mlir import ir

from hlo_passes.errors import LancetError
from hlo_passes.plans import Plan


@dataclass(frozen=True)
class Evidence:
    """What is written down.

    Attributes:
        name: of the step's module.
        modules: StableHLO by file name.
        programs: final HLO by file name.
        plans: what was decided, of each pass.
        options: how the step was compiled, by name.
        table: every output that was compared, a line each.
    """

    name: str
    modules: Mapping[str, ir.Module]
    programs: Mapping[str, str]
    plans: Sequence[Plan]
    options: Mapping[str, str]
    table: Sequence[str]

    def write(self) -> str:
        """Write it to a new folder for temporary files; return where, or why not."""
        try:
            folder = Path(tempfile.mkdtemp(prefix=f"lancet-jax-audit-{self.name}-"))
            for name, module in self.modules.items():
                text = module.operation.get_asm(enable_debug_info=True)
                (folder / name).write_text(text)
            for name, text in self.programs.items():
                (folder / name).write_text(text)
            for i, plan in enumerate(self.plans):
                plan.save(folder / f"plan-{i}.json")
            (folder / "versions.json").write_text(json.dumps(self._versions(), indent=1))
            (folder / "outputs.txt").write_text("\n".join(self.table) + "\n")
        except (OSError, LancetError) as error:
            return f"no folder, it cannot be written: {error}"
        return str(folder)

    def _versions(self) -> dict[str, str]:
        device = jax.local_devices()[0]
        return {
            **{name: version(name) for name in ("lancet-jax", "jax", "jaxlib")},
            "python": platform.python_version(),
            "device": f"{device.device_kind} ({device.client.platform_version})",
            "devices": str(jax.device_count()),
            "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
            **self.options,
        }
