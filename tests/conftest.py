"""Every test has its own, empty place for datasets, and draws without a display."""

import os

import pytest

# Read by mujoco when it is first imported.
os.environ.setdefault("MUJOCO_GL", "egl")


@pytest.fixture(autouse=True)
def datasets(tmp_path, monkeypatch):
    """Every test has its own, empty place for datasets, and works in an empty folder."""
    root = tmp_path / "datasets"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    monkeypatch.setenv("FEEDBACKGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return root
