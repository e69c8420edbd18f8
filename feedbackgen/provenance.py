"""What shaped an artefact: the versions of the software, and hashes of files."""

import hashlib
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

SIMULATION = ("feedbackgen", "numpy", "gymnasium", "mujoco", "safety-gymnasium", "minari", "h5py")


def versions(packages: Iterable[str] = SIMULATION) -> dict[str, str]:
    """Installed versions of the packages that are there, and Python's."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def folder_hash(folder: Path) -> str:
    """A hash over the names and contents of all files below a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
