"""Learners work where their data are, and what they leave behind is of the CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
from elsewhere import ELSEWHERE, Elsewhere, elsewhere

from feedbackgen.errors import RecipeError
from presa import training
from presa.batch import Batches
from presa.mapped import MappedRows
from presa.methods import METHODS, find_method
from presa.training import fit, resolve_config

# Torch takes the other device, which says that it is "meta", for one without values.
pytestmark = pytest.mark.filterwarnings("ignore:.*to a meta parameter:UserWarning")

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "my_method.py")
NETWORK = {"policy.hidden_sizes": [8]}
CLONING = NETWORK | {"cloning.n_steps": 40, "cloning.batch_size": 16}
VALUES = {"n_steps": 200, "batch_size": 16, "critic_sizes": [8], "vae_sizes": [8]}
# 200 updates each; the state is saved at the 100th, in the middle of a phase.
SHORT = {
    "bc": CLONING | {"cloning.n_steps": 200},
    "bc-safe": CLONING | {"cloning.n_steps": 200},
    "reference": CLONING | {"refining.n_steps": 160},
    "presa": CLONING | {"refining.n_steps": 40, "n_steps": 120, "n_pairs": 8, "n_safety_segments": 8},
    "cpl": CLONING | {"n_steps": 160, "n_pairs": 8},
    "cpl-safety-first": CLONING | {"n_steps": 160, "n_pairs": 8},
    "trac": CLONING | {"n_steps": 160, "n_segments": 16},
    "safe-rlhf": CLONING
    | {"n_reward_steps": 20, "n_cost_steps": 20, "n_value_steps": 60, "improvement.n_steps": 60, "n_units": 8},
    "cpq": VALUES | NETWORK,
    "bcq-lag": VALUES | {"shift_sizes": [8]},
    "cdt": {"n_steps": 200, "batch_size": 4, "context": 3, "n_units": 8, "n_layers": 1, "n_heads": 2},
    EXAMPLE: CLONING | {"n_steps": 160, "n_pairs": 8},
}


@pytest.fixture
def run(data, rewarded, tmp_path, monkeypatch):
    """Train a method on a device; ``stop`` interrupts it at the saved state."""
    monkeypatch.setattr(training, "SAVE_EVERY", 100)

    def train(method, name, *, stop=False, **options):
        def progress(done, *_):
            if stop and done == 100:
                raise KeyboardInterrupt

        about = {"method": method, "seed": 0, "task": "two-states"}
        chosen = find_method(method)
        learnt_from = rewarded if chosen.sees_rewards else data
        config = resolve_config(method, None, SHORT[method])[1]
        return fit(
            learnt_from, config, about, learner=chosen.learner, out=tmp_path / name, progress=progress, **options
        )

    return train


def policy(run):
    return (run / "policy.safetensors").read_bytes()


def test_every_method_is_tried():
    assert SHORT.keys() == {*METHODS, EXAMPLE}


@pytest.mark.parametrize("method", SHORT)
def test_no_learner_mixes_devices_and_a_run_resumes_where_it_was(run, method, monkeypatch):
    expected = policy(run(method, "cpu"))
    monkeypatch.setattr(training, "_require_device", lambda name: None)
    with elsewhere(monkeypatch):
        with pytest.raises(KeyboardInterrupt):
            run(method, "elsewhere", stop=True, device=ELSEWHERE.type)
        assert policy(run(method, "elsewhere", resume=True, device=ELSEWHERE.type)) == expected


def test_that_other_device_refuses_what_is_on_the_cpu(data, monkeypatch):
    with elsewhere(monkeypatch):
        there = torch.ones(3).to(ELSEWHERE)
        assert isinstance(there + 1, Elsewhere) and (there + 1).cpu().tolist() == [2, 2, 2]
        assert there[torch.tensor([0, 2])].device == ELSEWHERE
        with pytest.raises(AssertionError, match="tensors of two devices"):
            there + torch.ones(3)
        with pytest.raises(AssertionError, match="tensors of two devices"):
            torch.nn.Linear(3, 1)(there)


def test_mapped_steps_go_to_the_device_batch_by_batch(run, data, tmp_path, monkeypatch):
    expected = policy(run("presa", "cpu"))
    for name in ("observations", "actions"):
        np.save(tmp_path / f"{name}.npy", getattr(data, name).numpy())
        object.__setattr__(data, name, MappedRows(tmp_path / f"{name}.npy"))
    monkeypatch.setattr(training, "_require_device", lambda name: None)
    with elsewhere(monkeypatch):
        assert policy(run("presa", "elsewhere", device=ELSEWHERE.type)) == expected


def test_batches_are_where_their_data_are(data, monkeypatch):
    with elsewhere(monkeypatch):
        batch = Batches(data.to(ELSEWHERE), n_pairs=2, n_safety=2, n_batches=1, seed=0)[0]
    assert {tensor.device for tensor in vars(batch).values()} == {ELSEWHERE}


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "meta"])
def test_a_device_that_is_not_there_is_one_line_that_names_those_that_are(run, device):
    with pytest.raises(RecipeError, match=f"device '{device}': not on this machine; there is cpu"):
        run("bc", "run", device=device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", SHORT)
def test_on_a_gpu_a_run_resumes_to_the_same_bytes_and_learns_what_it_does_on_the_cpu(run, method, tmp_path):
    on_gpu = run(method, "gpu", device="cuda")
    run(method, "cpu")
    with pytest.raises(KeyboardInterrupt):
        run(method, "resumed", stop=True, device="cuda")
    assert policy(run(method, "resumed", resume=True, device="cuda")) == policy(on_gpu)
    losses = [
        float((tmp_path / name / "metrics.csv").read_text().splitlines()[1].split(",")[2]) for name in ("gpu", "cpu")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
