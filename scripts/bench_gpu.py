"""Steps in real seconds: schedules compiled for 8 H100, run on one with emulated exchanges.

    python -m scripts.bench_gpu --prepare build/gpu          # here: no GPU, the whole library
    python -m scripts.bench_gpu --run build/gpu --out out     # on a GPU: jax, jaxlib, nvcc
    python -m scripts.bench_gpu --capture build/gpu --out out # there too; may be left out
    python -m scripts.bench_gpu --collect build/gpu --out out # docs/real-gpu.json
    python -m scripts.bench_gpu --render                      # docs/real-gpu.md

`--prepare` compiles every pipeline for 8 GPUs and rewrites the final schedules: XLA's fusions,
kernels, order and memory stay, and every exchange becomes a copy of its bytes and a wait, on a
stream of its own. `--run` times them. What is measured is compute and how it overlaps; how long an
exchange takes is modelled.
"""

import argparse
import json
from pathlib import Path


def main() -> None:
    """Do what is asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prepare", type=Path, metavar="DIR")
    parser.add_argument("--run", type=Path, metavar="DIR")
    parser.add_argument("--capture", type=Path, metavar="DIR")
    parser.add_argument("--collect", type=Path, metavar="DIR")
    parser.add_argument("--render", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("gpu-out"))
    parser.add_argument("--model", default="gpt2_s_moe")
    parser.add_argument("--shares", default="0.45,0.6,0.2")
    parser.add_argument("--pipelines", default="off,dw,exchange,full,cut")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=240.0, help="after which --run ends")
    parser.add_argument("--programs", default="cut-0.45", help="to capture, to run without graphs")
    args = parser.parse_args()
    if args.prepare:
        from scripts.gpu_programs import Size, prepare

        size = Size(args.model, layers=args.layers, batch=args.batch)
        shares = [float(share) for share in args.shares.split(",")]
        prepare(args.prepare, size, shares, args.pipelines.split(","))
    if args.run:
        from scripts.gpu_player import run

        run(args.run, args.out, args.seconds, args.rounds, args.programs.split(","))
    if args.capture:
        from scripts.gpu_player import capture

        capture(args.capture, args.out, args.programs.split(","))
    if args.collect:
        from scripts.gpu_page import DATA
        from scripts.gpu_results import collect

        DATA.write_text(json.dumps(collect(args.collect, args.out), indent=1) + "\n")
    if args.render:
        from scripts.gpu_page import render

        render()


if __name__ == "__main__":
    main()
