"""The main job on real input: collect, label, train and evaluate on SafetyPointCircle1, every step an fbgen command."""

import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SEED = int(os.environ.get("SEED", "0"))
N_WORKERS = min(2, os.cpu_count() or 1)
OUT = Path("demo") if SEED == 0 else Path(f"demo-seed{SEED}")
DATASET = "feedbackgen/SafetyPointCircle1-v0/mixed-v0"
NOISES = {"noise0": "0", "noise10": "0.1"}
# The longest first, that two processes end together; bc reads no labels.
TRAININGS = [("presa", "noise0"), ("presa", "noise10"), ("bc-safe", "noise0"), ("bc-safe", "noise10"), ("bc", "noise0")]
FBGEN = Path(sys.executable).with_name("fbgen")


def main() -> None:
    start = time.monotonic()
    OUT.mkdir(exist_ok=True)
    # One thread per process: two processes share the machine, and one thread gives the same weights everywhere.
    os.environ |= {"MINARI_DATASETS_PATH": str((OUT / "datasets").resolve()), "OMP_NUM_THREADS": "1"}

    step("1. Roll out a mixture of behaviour policies, from poor to expert and from safe to reckless")
    run(f"collect --recipe SafetyPointCircle1-mixed --seed {SEED} --workers {N_WORKERS} --plot {OUT}/dataset.png -f")
    step("2. Ask a simulated teacher: which of two segments is better, and is this segment safe?")
    for name, noise in NOISES.items():
        run(f"label {DATASET} --pairs 10000 --segment-length 64 --noise {noise} --seed {SEED} --name {name} -f")
    step("3. Train on that feedback alone; the true rewards and costs stay hidden")
    runs = {f"{OUT}/runs/{method}-{name}": (method, name) for method, name in TRAININGS}
    in_parallel(
        f"train {method} {DATASET}/{name} --seed {SEED} --out {run_folder} -f"
        for run_folder, (method, name) in runs.items()
    )
    step("4. Let each last policy act for 50 episodes")
    in_parallel(f"evaluate {run_folder} --episodes 50" for run_folder in runs)
    step("5. How good, and how safe?")
    run(f"report {' '.join(runs)} --plot {OUT}/report.png --json {OUT}/report.json", quiet=False)

    print(f"\nDone in {(time.monotonic() - start) / 60:.1f} minutes. Look at {OUT}/dataset.png and {OUT}/report.png.")
    print("Next, for example:")
    print(f"  export MINARI_DATASETS_PATH={OUT}/datasets PATH=$PWD/.venv/bin:$PATH")
    print(f"  fbgen evaluate {OUT}/runs/presa-noise0 --episodes 1 --video {OUT}/presa.mp4")
    print(f"  fbgen label {DATASET} --pairs 5000 --segment-length 32 --error-rate 0.1 --name short")
    print("  fbgen policies SafetyHalfCheetahVelocity-v1")


def step(title: str) -> None:
    print(f"\n{title}", flush=True)


def run(arguments: str, quiet: bool = False) -> None:
    print(f"$ fbgen {arguments}", flush=True)
    command = [FBGEN, *shlex.split(arguments)]
    result = subprocess.run(command, text=True, capture_output=quiet)
    if result.returncode:
        print(result.stderr or "", file=sys.stderr)
        raise SystemExit(f"fbgen {arguments.split()[0]} failed with exit code {result.returncode}")


def in_parallel(commands) -> None:
    with ThreadPoolExecutor(N_WORKERS) as pool:
        for done in [pool.submit(run, command, quiet=True) for command in commands]:
            done.result()


if __name__ == "__main__":
    main()
