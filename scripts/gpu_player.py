"""Runs on a machine with one GPU: programs of `gpu_programs`, by the clock.

Needs jax, jaxlib and numpy alone. Programs take turns, so that a change of the machine meets all of
them; every turn begins with the state of a fresh model, so that routing stays that of one.
"""

import json
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import jax

from scripts.scheduled_programs import Links, compile_scheduled, fresh_arguments, signature_of

_STEPS = 2
"""Steps that one turn times together."""


@dataclass
class Player:
    """A program on the GPU.

    Attributes:
        name: as in `programs.json`.
        compiled: the executable.
        donated: (result, argument) pairs: what a step hands to the next.
        exchange_us: modelled time of all its exchanges.
    """

    name: str
    compiled: Any
    donated: tuple[tuple[int, int], ...]
    exchange_us: float

    def turn(self, fresh: list[Any], steps: int = _STEPS) -> float:
        """Return the us of a step, the mean of `steps` that follow one another."""
        arguments = list(fresh)
        for _, argument in self.donated:
            arguments[argument] = fresh[argument].copy()
        jax.block_until_ready(arguments)
        started = time.perf_counter()
        results: Any = None
        for _ in range(steps):
            results = self.compiled(*arguments)
            for result, argument in self.donated:
                arguments[argument] = results[result]
        jax.block_until_ready(results)
        return (time.perf_counter() - started) / steps * 1e6


@dataclass
class Bench:
    """What is measured, and where the results go.

    Attributes:
        folder: that `gpu_programs.prepare` wrote.
        out: where results go.
        until: time on `perf_counter` after which no more turns begin.
    """

    folder: Path
    out: Path
    until: float
    found: dict[str, Any] = field(default_factory=dict)

    def save(self) -> None:
        """Write what is known so far."""
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "measured.json").write_text(json.dumps(self.found))

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.until - time.perf_counter()


_ONE_BY_ONE = {"xla_gpu_enable_command_buffer": ""}
"""No CUDA graphs: every op is launched by itself."""


def run(folder: Path, out: Path, seconds: float, rounds: int, again: Sequence[str] = ()) -> None:
    """Measure everything in a folder of `prepare`, and programs named `again` without graphs.

    Args:
        folder: what `prepare` wrote.
        out: where to write what was found.
        seconds: after which no new round begins.
        rounds: of all programs, one after another.
        again: names of programs.
    """
    bench = Bench(folder, out, time.perf_counter() + seconds)
    about = json.loads((folder / "programs.json").read_text())
    wanted = about["programs"]
    links = Links(build(folder))
    device = jax.local_devices()[0]
    bench.found |= {"machine": machine(), "rounds": {}, "steps_per_turn": _STEPS}
    started = time.perf_counter()
    players, fresh = load(folder, wanted, device)
    bench.found["compile_s"] = time.perf_counter() - started
    print(f"{len(players)} programs compiled in {bench.found['compile_s']:.1f} s", flush=True)
    for player in players.values():
        links.scale(1.0)
        first = player.turn(fresh, 1)
        print(f"{player.name}: {first:,.0f} us, the first time", flush=True)
    bench.save()
    for share in sorted({p["share"] for p in wanted}, key=lambda s: abs(s - 0.45)):
        group = {p["name"]: players[p["name"]] for p in wanted if p["share"] == share}
        _measure(bench, links, group, fresh, share, rounds)
    links.scale(1.0)
    named = [p for p in wanted if p["name"] in again]
    players, _ = load(folder, named, device, fresh, _ONE_BY_ONE) if named else ({}, fresh)
    for name, player in players.items():
        player.turn(fresh)
        taken = [player.turn(fresh) for _ in range(5)]
        bench.found.setdefault("without_graphs", {})[name] = taken
        bench.save()


def _measure(
    bench: Bench,
    links: Links,
    group: Mapping[str, Player],
    fresh: list[Any],
    share: float,
    rounds: int,
) -> None:
    """Measure one speed's programs: no exchange time, the modelled times, and those that are right.

    The last are the modelled times multiplied so that exchanges take the share of the stock step
    that the clock shows, not the judge.
    """
    stock = next(p for name, p in group.items() if name.startswith("off"))
    factor = calibrate(stock, links, fresh, share)
    for kind, scale in (("none", 0.0), ("modelled", 1.0), ("share", factor)):
        taken: dict[str, list[float]] = {name: [] for name in group}
        links.scale(scale)
        names = list(group)
        for name in names:
            group[name].turn(fresh, 1)
        for i in range(rounds):
            if bench.left() < 0:
                break
            for name in names[i % len(names) :] + names[: i % len(names)]:
                taken[name].append(group[name].turn(fresh))
        bench.found["rounds"][f"{share}/{kind}"] = {"scale": scale, "us": taken}
        said = ", ".join(f"{name} {median(us):,.0f}" for name, us in taken.items() if us)
        print(f"share {share}, {kind}: {said}", flush=True)
        bench.save()


def calibrate(stock: Player, links: Links, fresh: list[Any], share: float) -> float:
    """Return by what to multiply exchange times so that they take `share` of the stock step.

    Args:
        stock: the step as XLA alone schedules it.
        links: the emulated links, which are scaled.
        fresh: arguments of a step.
        share: of the step that exchanges are to take.
    """
    factor = 1.0
    for _ in range(3):
        links.scale(factor)
        us = median(stock.turn(fresh) for _ in range(3))
        # Exchanges that compute hides do not make the step longer: what is left of it without
        # their whole time changes little from one factor to the next.
        rest = us - factor * stock.exchange_us
        factor = share * rest / (1 - share) / stock.exchange_us
    return factor


def load(
    folder: Path,
    programs: Sequence[Mapping[str, Any]],
    device: Any,
    fresh: list[Any] | None = None,
    options: dict[str, Any] | None = None,
) -> tuple[dict[str, Player], list[Any]]:
    """Compile programs side by side, equal ones once, and make a fresh model's state.

    Args:
        folder: what `prepare` wrote.
        programs: entries of its `programs.json`.
        device: the GPU.
        fresh: a fresh model's state, if there is one already.
        options: XLA options.
    """
    texts = {p["name"]: (folder / f"{p['name']}.hlo").read_text() for p in programs}
    different = list(dict.fromkeys(texts.values()))
    with ThreadPoolExecutor(12) as pool:
        made = pool.map(lambda text: compile_scheduled(text, device, options), different)
        compiled = dict(zip(different, made, strict=True))
    players = {
        p["name"]: Player(
            p["name"], compiled[texts[p["name"]]], signature_of(texts[p["name"]]).donated,
            sum(e["us"] for e in p["exchanges"]),
        )
        for p in programs
    }  # fmt: skip
    return players, fresh or fresh_arguments(different[0], device)


def build(folder: Path) -> Path:
    """Compile the library of emulated exchanges with nvcc."""
    made = folder / "libemulated_exchanges.so"
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    done = subprocess.run(
        [nvcc, "-O2", "-std=c++17", "-arch=sm_90", "-shared", "-Xcompiler", "-fPIC",
         "-cudart", "static", "-I", jax.ffi.include_dir(), "-o", str(made),
         str(folder / "emulated_exchanges.cu")],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"nvcc: {done.stderr[-2000:]}")
    return made


def capture(folder: Path, out: Path, names: Sequence[str], steps: int = 3) -> None:
    """Take a `jax.profiler` capture of each of some programs, exchanges as modelled.

    A capture holds every module that its process has compiled: do it apart from `run`.

    Args:
        folder: what `prepare` wrote.
        out: folder of the captures.
        names: of the programs.
        steps: how many a capture has.
    """
    about = json.loads((folder / "programs.json").read_text())
    links = Links(build(folder))
    links.scale(1.0)
    wanted = [p for p in about["programs"] if p["name"] in names]
    players, fresh = load(folder, wanted, jax.local_devices()[0])
    out.mkdir(parents=True, exist_ok=True)
    for name, player in players.items():
        _trace(out / f"{name}.xplane.pb", player, fresh, steps)


def _trace(path: Path, player: Player, fresh: list[Any], steps: int) -> None:
    """Trace steps, the host's Python left out, and put the capture where it is easily fetched."""
    player.turn(fresh)
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    work = path.parent / "trace"
    with jax.profiler.trace(str(work), profiler_options=options):
        for _ in range(steps):
            player.turn(fresh, 1)
    found = next(work.glob("plugins/profile/*/*.xplane.pb"))
    shutil.copy(found, path)
    print(f"{path.name}: {path.stat().st_size:,} bytes", flush=True)
    shutil.rmtree(work)


def machine() -> dict[str, Any]:
    """Return what ran: device, driver, versions."""
    names = ("jax", "jaxlib", "jax-cuda13-plugin", "jax-cuda13-pjrt", "numpy")
    asked = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"],
        capture_output=True, text=True,
    )  # fmt: skip
    return {
        "gpu": asked.stdout.strip(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
        "date": datetime.now(UTC).date().isoformat(),
    }
