"""JAX's persistent compilation cache: a hit gives the rewritten program, and never a wrong one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import json, sys
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
import numpy as np
import lancet_jax
from tests.steps import CASES
hits = []
jax.monitoring.register_event_listener(lambda e, **k: hits.append(1) if "cache_hits" in e else None)
case = CASES["scatter"](jax.devices())
mode = sys.argv[2]
wrap = jax.jit if mode == "plain" else lambda f, **k: lancet_jax.jit(f, pipeline=mode, target="v100:1x8", **k)
step = wrap(case.step, **case.jit_kwargs)
hits.clear()
compiled = step.lower(*case.args).compile()
found = len(hits)
text = compiled.as_text()
loss = compiled(*case.args)[1]
order = [l.split(" = ")[0].strip() for l in text[text.index("ENTRY"):].splitlines() if " = " in l]
plan = getattr(compiled, "plan", None)
print(json.dumps({"hits": found, "order": order, "marked": "lancet_salt" in text, "loss": str(np.asarray(loss).tobytes()),
                  "plan": plan.hash if plan else None}))
"""


def run(folder: Path, mode: str) -> dict:
    root = Path(__file__).parents[2]
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM, str(folder), mode],
        capture_output=True, text=True, cwd=root, timeout=300,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr[-2000:]
    return json.loads(out.stdout.splitlines()[-1])


@pytest.mark.slow
def test_hits_are_right_in_every_direction(tmp_path):
    plain = run(tmp_path, "plain")
    first = run(tmp_path, "schedule-dw{memory-slack=10}")
    again = run(tmp_path, "schedule-dw{memory-slack=10}")
    greedy = run(tmp_path, "schedule-dw{strategy=greedy,memory-slack=10}")
    after = run(tmp_path, "plain")
    assert (plain["hits"], first["hits"], again["hits"], after["hits"]) == (0, 0, 1, 1)
    assert greedy["hits"] == 0
    assert first["order"] != plain["order"]
    assert again["order"] == first["order"]
    assert after["order"] == plain["order"]
    assert (first["marked"], again["marked"]) == (True, True)
    assert (plain["marked"], after["marked"]) == (False, False)
    assert again["plan"] == first["plan"] is not None
    assert len({r["loss"] for r in (plain, first, again, after, greedy)}) == 1
