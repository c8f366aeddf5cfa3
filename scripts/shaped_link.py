"""Processes of one machine with a link of limited rate between them: for the benchmarks beside.

Every run gets a network namespace of its own (`unshare -n --uts`, as root or in a user namespace),
with nothing in it but a loopback that a token bucket holds to the rate, and a host name that
resolves to it, for gloo. It is gone with its last process. One process a rank, on a core of its
own while there are cores. Where the rights or `tc` are missing there is no such link (`prefix`).
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_BURST = "72kb"
"""Of the token bucket: more than one packet of the loopback, and little free credit."""

_TCP = {
    "tcp_wmem": "4096 65536 262144",
    "tcp_rmem": "4096 131072 524288",
    "tcp_limit_output_bytes": "131072",
    "tcp_slow_start_after_idle": "0",
}
"""Small buffers, so that a message's time is that of its bytes and not of a queue before it."""


@dataclass(frozen=True)
class Job:
    """What to run.

    Attributes:
        module: Python module whose main takes `--rank`, `--ports`, `--mbit` and `--paced` besides.
        arguments: its other arguments.
        mbit: Mbit/s of all ranks together.
        ranks: how many processes.
        threads: of XLA's pool in each.
        paced: no namespace; the processes hold themselves to the rate.
        pairs: two cores a rank, the second for its exchanges, if there are so many.
        timeout: seconds.
    """

    module: str
    arguments: Sequence[str]
    mbit: float
    ranks: int = 2
    threads: int = 1
    paced: bool = False
    pairs: bool = False
    timeout: float = 600.0

    def run(self) -> Any:
        """Run all ranks and return the JSON that rank 0 prints last; exits if one fails."""
        where = [] if self.paced else prefix()
        if where is None:
            sys.exit("no network namespace here: unshare, ip and tc are needed, and rights")
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        command = [*where, sys.executable, "-m", "scripts.shaped_link", json.dumps(fields)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.exit(f"the ranks at {self.mbit:g} Mbit/s ended with code {done.returncode}")
        return json.loads(done.stdout.splitlines()[-1])


def prefix() -> list[str] | None:
    """Return what to put before a command to run it in a network of its own; None if it fails."""
    if not all(map(shutil.which, ("unshare", "ip", "tc"))):
        return None
    for found in (["unshare", "-n", "--uts"], ["unshare", "-U", "-r", "-n", "--uts"]):
        script = f"ip link set lo up && hostname 127.0.0.1 && {shape_command(1000)}"
        tried = subprocess.run([*found, "sh", "-c", script], capture_output=True, check=False)
        if tried.returncode == 0:
            return found
    return None


def shape_command(mbit: float, verb: str = "add") -> str:
    """Return the command that holds the loopback to a rate."""
    return f"tc qdisc {verb} dev lo root tbf rate {mbit}mbit burst {_BURST} latency 400ms"


def main() -> None:
    """Set up the link, start one process a rank, and end all if one fails."""
    job = Job(**json.loads(sys.argv[1]))
    if not job.paced:
        for line in ("ip link set lo up", "hostname 127.0.0.1", shape_command(job.mbit)):
            subprocess.run(line.split(), check=True)
        for name, value in _TCP.items():
            with open(f"/proc/sys/net/ipv4/{name}", "w") as file:
                file.write(value)
    ranks = _start(job)
    deadline = time.monotonic() + job.timeout
    try:
        while any(process.poll() is None for process in ranks):
            for rank, process in enumerate(ranks):
                if process.poll():
                    sys.exit(f"rank {rank} ended with code {process.returncode}")
            if time.monotonic() > deadline:
                sys.exit(f"not done after {job.timeout:.0f} s: --timeout allows more")
            time.sleep(0.2)
        if any(process.returncode for process in ranks):
            sys.exit(f"the ranks ended with codes {[p.returncode for p in ranks]}")
    finally:
        for process in ranks:
            if process.poll() is None:
                process.kill()
            process.wait()


def _start(job: Job) -> list[subprocess.Popen[bytes]]:
    ports = ",".join(map(str, _free_ports(job.ranks)))
    cores = sorted(os.sched_getaffinity(0))
    environment = {**os.environ, "PJRT_NPROC": str(job.threads), "JAX_PLATFORMS": "cpu",
                   "MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "8589934592",
                   "MALLOC_TOP_PAD_": "67108864"}  # fmt: skip
    started = []
    for rank in range(job.ranks):
        command = [sys.executable, "-W", "ignore", "-m", job.module, *job.arguments,
                   "--ranks", str(job.ranks), "--rank", str(rank), "--ports", ports,
                   "--mbit", str(job.mbit), *(["--paced"] if job.paced else [])]  # fmt: skip
        core = cores[rank % len(cores)]
        if job.pairs and len(cores) >= 2 * job.ranks:
            core = cores[2 * rank]
            command += ["--exchange-core", f"{cores[2 * rank + 1]}"]
        started.append(subprocess.Popen(
            command, env=environment, stdout=None if rank == 0 else subprocess.DEVNULL,
            preexec_fn=lambda core=core: os.sched_setaffinity(0, {core}),
        ))  # fmt: skip
    return started


def _free_ports(count: int) -> list[int]:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def add_rank_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that a rank is started with."""
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--paced", action="store_true", help="no namespace: sleep instead")
    parser.add_argument("--mbit", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--ports", help=argparse.SUPPRESS)
    parser.add_argument("--exchange-core", type=int, help=argparse.SUPPRESS)


def busy_seconds() -> float:
    """Return the CPU seconds that all of the machine has spent so far."""
    with open("/proc/stat") as file:
        numbers = list(map(int, file.readline().split()[1:]))
    return (sum(numbers) - numbers[3] - numbers[4]) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
