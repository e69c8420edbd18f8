"""Build the distributions, look inside, install the wheel into empty environments elsewhere and do the job there.

make release-check            # with every Python from 3.11 to 3.13 that is found
make release-check ARGS=3.12  # with this one
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13")
PACKAGES = {"feedbackgen", "presa", "fbgen"}
DATASET = "feedbackgen/SafetyPointCircle1-v0/release-v0"
JOB = (
    "--help",
    "tasks",
    "collect SafetyPointCircle1-v0 -n 20 --policy expert:0.5 --policy safe-expert:0.5 --name release",
    f"label {DATASET} --pairs 200 --segment-length 32",
    f"train presa {DATASET} --out run --set cloning.n_steps=300 --set refining.n_steps=300 --set n_steps=300",
    "evaluate run --episodes 2",
    "report run",
)


def main() -> None:
    chosen = sys.argv[1:] or VERSIONS
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        wheel, sdist = build(folder / "dist")
        check_wheel(wheel)
        check_sdist(sdist)
        found = {version: python for version in chosen if (python := interpreter(version)) is not None}
        if not found:
            raise SystemExit(f"no Python of {', '.join(chosen)} is here")
        for version, python in found.items():
            do_the_job(wheel, python, folder / version)
        absent = [version for version in chosen if version not in found]
        print(f"\nAll well with Python {', '.join(found)}." + (f" Not found: {', '.join(absent)}." if absent else ""))


def build(folder: Path) -> tuple[Path, Path]:
    run([sys.executable, "-m", "build", "--outdir", folder, ROOT])
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB; {sdist.name}: {sdist.stat().st_size / 1e6:.2f} MB")
    return wheel, sdist


def check_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    require(tops == PACKAGES, f"top level of the wheel: expected {sorted(PACKAGES)}, found {sorted(tops)}")
    require(any(name.endswith("licenses/LICENSE") for name in names), "the wheel has no licence")
    for recipe in (ROOT / "datasets").glob("*/recipe.toml"):
        name = f"feedbackgen/recipes/{recipe.parent.name}/recipe.toml"
        require(name in names, f"the wheel lacks {name}")
    # Weights, page, schemas: whatever lies beside the code.
    for package, folder in (("feedbackgen", "feedbackgen"), ("presa", "presa"), ("fbgen", "cli/fbgen")):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                name = f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
                require(name in names, f"the wheel lacks {name}")
    print(f"wheel: {len(names)} files, {', '.join(sorted(tops))}, licence, weights and recipes")


def check_sdist(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lacking = {name for name in tracked.splitlines() if not name.startswith(".")} - names
    require(not lacking, f"the sdist lacks {', '.join(sorted(lacking))}")
    print(f"sdist: {len(names)} files")


def do_the_job(wheel: Path, python: str, folder: Path) -> None:
    """Install into an empty environment outside the repository, and collect, label, train and evaluate there."""
    start = time.monotonic()
    environment = folder / "environment"
    run([python, "-m", "venv", environment])
    pip = [environment / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    run([*pip, "-c", ROOT / "constraints.txt", f"{wheel}[sim,train,plot]"])
    run([*pip, "--no-deps", "safety-gymnasium==1.0.0"])
    installed = time.monotonic()
    work = folder / "work"
    work.mkdir()
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    variables |= {"MINARI_DATASETS_PATH": str(work / "datasets"), "OMP_NUM_THREADS": "1"}
    for command in JOB:
        run([environment / "bin" / "fbgen", *command.split()], cwd=work, env=variables)
    spent = time.monotonic() - installed
    print(f"{python}: installed in {installed - start:.0f} s, {len(JOB)} commands in {spent:.0f} s")
    shutil.rmtree(folder)


def interpreter(version: str) -> str | None:
    """A Python of that version that starts; version managers leave commands that do not."""
    candidates = [sys.executable, f"python{version}"]
    candidates += sorted(map(str, Path.home().glob(f".pyenv/versions/{version}*/bin/python")))
    for candidate in candidates:
        if shutil.which(candidate) is None:
            continue
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        result = subprocess.run([candidate, "-c", code], capture_output=True, text=True)
        if result.stdout.strip() == version:
            return candidate
    return None


def run(command, **options) -> None:
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if result.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{result.stdout[-2000:]}{result.stderr[-4000:]}")


def require(good: bool, message: str) -> None:
    if not good:
        raise SystemExit(message)


if __name__ == "__main__":
    main()
