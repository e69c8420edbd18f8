"""A seed's bytes do not depend on the processor: numpy is held to what all of them can do."""

import os
import subprocess
import sys

import pytest

from feedbackgen import arithmetic

needs_avx512 = pytest.mark.skipif(not arithmetic._has_avx512(), reason="the processor has no AVX-512")
SHOW = """
import threadpoolctl
from numpy._core._multiarray_umath import __cpu_features__
from feedbackgen.arithmetic import came_too_late

print([library["architecture"] for library in threadpoolctl.threadpool_info()], __cpu_features__["AVX512_SKX"],
      came_too_late())
"""
COLLECT = """
from feedbackgen.collect import collect
from feedbackgen.label import LabelConfig, label
from feedbackgen.recipe import Recipe

if __name__ == "__main__":
    recipe = Recipe(
        task="SafetyPointGoal1-v0", policies={"expert": 1}, n_episodes=4, max_episode_steps=200, name="same"
    )
    info = collect(recipe)
    summary = label(info.path, LabelConfig(n_pairs=50, segment_length=16))
    print(info.fingerprint[:16], summary.statistics["return_scale"])
"""
# What processors with AVX2 alone give; another mujoco, or another libm, may well give others.
FINGERPRINT, RETURN_SCALE = "090b571c30ac1257", "0.6138832614340679"


def run(code: str, folder, **environment: str) -> str:
    """What a new process prints that inherits no choice of ours."""
    inherited = {name: value for name, value in os.environ.items() if name not in arithmetic.common()}
    settings = {"MINARI_DATASETS_PATH": str(folder / "datasets"), **environment}
    script = folder / "script.py"
    script.write_text(code)
    command = [sys.executable, script]
    return subprocess.run(command, env=inherited | settings, check=True, capture_output=True, text=True).stdout


@needs_avx512
def test_numpy_does_as_on_other_processors(tmp_path):
    assert run(f"import feedbackgen\n{SHOW}", tmp_path) == "['Haswell'] False False\n"


@needs_avx512
def test_numpy_that_was_imported_before_is_known(tmp_path):
    assert run(f"import numpy, feedbackgen\n{SHOW}", tmp_path).endswith("True True\n")


@needs_avx512
def test_what_the_user_chose_stands(tmp_path):
    settings = {arithmetic.BLAS: "Sandybridge", arithmetic.NUMPY: ""}
    assert run(f"import feedbackgen\n{SHOW}", tmp_path, **settings) == "['Sandybridge'] True False\n"


@pytest.mark.simulator
def test_the_bytes_are_those_of_other_processors(tmp_path):
    if "avx2" not in arithmetic.processor_flags():
        pytest.skip("the processor has no AVX2")
    assert run(COLLECT, tmp_path).split() == [FINGERPRINT, RETURN_SCALE]


@needs_avx512
@pytest.mark.simulator
def test_numpy_that_was_imported_before_does_not_play(tmp_path):
    assert run("import numpy\n" + COLLECT, tmp_path).split()[0] == FINGERPRINT


@pytest.mark.parametrize(("has_it", "chosen"), [(False, {}), (True, arithmetic.common())])
def test_only_where_there_is_avx512_anything_is_set(monkeypatch, has_it, chosen):
    for name in arithmetic.common():
        monkeypatch.setenv(name, "")  # so that it is put back as it was
        monkeypatch.delenv(name)
    monkeypatch.setattr(arithmetic, "_has_avx512", lambda: has_it)
    arithmetic.choose_common()
    assert {name: os.environ[name] for name in arithmetic.common() if name in os.environ} == chosen
