"""Let imitation, d3rlpy and torchrl load what we write, each in an environment of its own, and note what they say.

make interop                          # writes their versions and output into docs/interop.md
make interop ARGS="--scratch FOLDER"  # keeps the environments there

They are installed from PyPI, once, with the torch that is installed here. A peer that fails ends the run, and the page
stays as it is.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "interop.md"
BEGIN, END = "<!-- written by make interop -->\n", "<!-- end -->\n"
TASK = "SafetyPointCircle1-v0"
DATASET = f"feedbackgen/{TASK}/interop-v0"
MINARI = ("minari[hdf5]==0.5.4", "pillow")
SHOWN = ("torch", "numpy", "gymnasium", "minari", "tensordict")  # versions, where they are installed
FBGEN = [sys.executable, "-W", "ignore", "-c", "from fbgen.main import main; main()"]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Who loads what."""

    requirement: str
    script: str  # in tools/peers/
    loads: str
    with_feedbackgen: bool = False  # it makes the environment that the dataset names

    @property
    def name(self) -> str:
        return self.requirement.partition("==")[0]


PEERS = (
    Peer(requirement="imitation==1.0.1", script="imitation_rewards.py", loads="preferences.pkl"),
    Peer(requirement="d3rlpy==2.8.1", script="d3rlpy_dataset.py", loads=DATASET, with_feedbackgen=True),
    # Later ones (0.14.1) read any Minari dataset as zeros: what was read is replaced by empty files of its shapes.
    Peer(requirement="torchrl==0.10.1", script="torchrl_replay.py", loads=DATASET),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "feedbackgen-interop")
    scratch = parser.parse_args().scratch.absolute()
    scratch.mkdir(parents=True, exist_ok=True)
    os.environ |= {"MINARI_DATASETS_PATH": str(scratch / "datasets"), "OMP_NUM_THREADS": "1", "MUJOCO_GL": "egl"}
    pythons = {peer.name: environment(peer, scratch / peer.name) for peer in PEERS}
    make_files(scratch, pythons["imitation"])
    texts = [
        f"With {software(sys.executable, ('feedbackgen', 'minari', 'numpy'))}, Python {platform.python_version()}:\n"
    ]
    for peer in PEERS:
        said = output([pythons[peer.name], "-W", "ignore", ROOT / "tools" / "peers" / peer.script, peer.loads], scratch)
        print(f"{peer.requirement}\n{said}", flush=True)
        versions = software(pythons[peer.name], (peer.name, *SHOWN))
        texts.append(f"{versions}, `tools/peers/{peer.script}`:\n\n```\n{said}\n```\n")
    write_page("\n".join(texts))


def environment(peer: Peer, folder: Path) -> Path:
    """The interpreter of a virtual environment that has the peer."""
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        print(f"installing {peer.requirement} into {folder} ...", file=sys.stderr)
        torch = f"torch=={version('torch').partition('+')[0]}"
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        ours = [f"{ROOT}[sim]"] if peer.with_feedbackgen else []
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([*pip, torch], check=True)  # first and alone: nothing may bring another one
        subprocess.run([*pip, torch, peer.requirement, *MINARI, *ours], check=True)
        if ours:
            subprocess.run([*pip, "--no-deps", "safety-gymnasium==1.0.0"], check=True)
        (folder / "installed").touch()
    return python


def make_files(scratch: Path, imitation: Path) -> None:
    """A dataset, feedback on it, and imitation's file of preferences."""
    policies = ["--policy", "expert:0.5", "--policy", "safe-expert:0.5"]
    for arguments in (
        ["collect", TASK, "-n", "10", *policies, "--name", "interop", "--force"],
        ["label", DATASET, "--pairs", "200", "--segment-length", "32", "--force"],
        ["export", f"{DATASET}/default", "--format", "imitation", "--python", imitation, "--out", "preferences.pkl",
         "--force"],
    ):  # fmt: skip
        output([*FBGEN, *map(str, arguments)], scratch)


def software(python: str | Path, names: tuple[str, ...]) -> str:
    """Names and versions of those that are installed, in that order."""
    code = f"""
from importlib.metadata import PackageNotFoundError, version
for name in {names!r}:
    try:
        print(name, version(name))
    except PackageNotFoundError:
        pass
"""
    return ", ".join(output([python, "-c", code], ROOT).splitlines())


def output(command: list, folder: Path) -> str:
    """What a command prints; if it fails, that ends the run."""
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{result.stdout}{result.stderr}")
    return result.stdout.strip()


def write_page(text: str) -> None:
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
