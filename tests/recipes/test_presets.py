"""The YAML files that --config-name chooses."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from mpo_torchrl.trainer import MPOConfig, MPOTrainer
from tests.trainer.small import SETTINGS
from tests.trainer.test_command_line import call  # noqa: F401

CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"
PRESETS = ["acme_control", "acme_gym", "default", "tonic", "tuned"]


def settings_of(preset: str) -> dict:
    settings = yaml.safe_load((CONFIGS / f"{preset}.yaml").read_text())
    assert settings.pop("defaults") == ["mpo", "_self_"]
    return settings


def test_these_are_the_presets():
    assert sorted(path.stem for path in CONFIGS.glob("*.yaml")) == sorted([*PRESETS, "mpo"])


@pytest.mark.parametrize("preset", PRESETS)
def test_the_command_line_takes_a_preset(call, preset):  # noqa: F811
    _, (config,), _, _ = call("--config-name", preset, "env=Pendulum-v1", "seed=7")
    expected = {**settings_of(preset), "env": "Pendulum-v1", "seed": 7}
    assert config == MPOConfig(**expected)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_trains(preset):
    settings = {**settings_of(preset), **SETTINGS, "env": "Pendulum-v1", "total_timesteps": 120}
    settings |= {name: [16, 16] for name in ("actor_cells", "critic_cells") if name in settings}
    trainer = MPOTrainer.from_config(MPOConfig(**settings))
    metrics = trainer.train()
    config = trainer.config
    learning = [t for t in range(config.batch_steps, 120 + config.batch_steps, config.batch_steps)
                if t >= config.random_steps]  # fmt: skip
    assert metrics["env_steps"] == 120
    assert metrics["updates"] == config.updates_per_batch * len(learning) > 0
    assert metrics["kl_mean"] >= 0


def test_the_default_preset_changes_nothing():
    assert settings_of("default") == {}


@pytest.mark.parametrize("preset", ["acme_control", "acme_gym", "tonic"])
def test_a_published_preset_moves_the_policy_by_published_bounds(preset):
    config = MPOConfig(**settings_of(preset))
    assert (config.epsilon, config.epsilon_stddev, config.epsilon_penalty) == (0.1, 1e-6, 1e-3)
    assert config.num_critics == 1 and config.n_action_samples == 20 and config.gamma == 0.99


@pytest.mark.parametrize(
    ("preset", "ratio"), [("acme_gym", 0.25), ("acme_control", 0.125), ("tonic", 1.0)]
)
def test_a_published_preset_updates_as_often(preset, ratio):
    config = MPOConfig(**settings_of(preset))
    assert config.updates_per_batch / config.batch_steps == ratio


def test_help_names_the_presets(call):  # noqa: F811
    _, _, output, _ = call("--help")
    for preset in PRESETS:
        assert any(line.split()[:1] == [preset] for line in output.splitlines()), preset


def test_every_setting_of_a_preset_is_one():
    names = {field.name for field in dataclasses.fields(MPOConfig)}
    for preset in PRESETS:
        assert settings_of(preset).keys() <= names


if __name__ == "__main__":
    pytest.main([__file__])
