import tomllib

import pytest

from feedbackgen.errors import RecipeError
from presa.configuration import configuration_text, configured
from presa.methods import METHODS
from presa.training import resolve_config


@pytest.mark.parametrize("method", METHODS)
def test_a_configuration_survives_its_text(method):
    for preset in METHODS[method].presets.values():
        values = tomllib.loads(configuration_text(preset))
        assert configured(METHODS[method].presets["default"], values) == preset


def test_text_from_the_command_line_takes_the_type_of_its_field():
    overrides = {"cloning.n_steps": "20", "log_ratio_clip": "inf", "policy.hidden_sizes": "[8]", "pairs": "safe-safe"}
    config = resolve_config("presa", None, overrides)[1]
    assert (config.cloning.n_steps, config.log_ratio_clip, config.policy.hidden_sizes) == (20, float("inf"), (8,))
    assert config.pairs == "safe-safe"


def test_a_file_lies_over_the_preset_it_names(tmp_path):
    (tmp_path / "mine.toml").write_text('preset = "paper"\nthreshold = 1\n[cloning]\nbatch_size = 7\n')
    preset, config = resolve_config("presa", tmp_path / "mine.toml")
    assert (preset, config.threshold, config.cloning.batch_size, config.cloning.n_steps) == ("paper", 1.0, 7, 13_000)


@pytest.mark.parametrize(
    ("method", "config", "overrides", "message"),
    [
        ("pressa", None, None, "unknown method 'pressa'; did you mean presa"),
        ("ppo", None, None, f"unknown method 'ppo'; there are {', '.join(METHODS)}, or the file of your own, NAME.py"),
        ("presa", "papr", None, "no preset 'papr', nor is there such a file; did you mean paper"),
        ("presa", "absent.toml", None, "absent.toml: no such file"),
        ("presa", {"preset": "papr"}, None, "no preset 'papr'; did you mean paper"),
        ("presa", None, {"treshold": 0.9}, "unknown key 'treshold'; did you mean threshold"),
        ("presa", None, {"cloning.n_step": 1}, "unknown key 'n_step'; did you mean n_steps"),
        ("presa", None, {"cloning": 3}, "cloning is a table"),
        ("presa", None, {"n_steps": "many"}, "n_steps expects a whole number, got 'many'"),
        ("presa", None, {"n_steps": 1.5}, "n_steps expects a whole number, got 1.5"),
        ("presa", None, {"threshold": 2}, "threshold: expected a number from 0 to 1"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(method, config, overrides, message):
    with pytest.raises(RecipeError, match=message):
        resolve_config(method, config, overrides)


def test_a_file_that_is_not_toml_is_refused(tmp_path):
    (tmp_path / "broken.toml").write_text("threshold =")
    with pytest.raises(RecipeError, match="not valid TOML"):
        resolve_config("presa", tmp_path / "broken.toml")
