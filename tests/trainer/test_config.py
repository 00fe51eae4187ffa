from __future__ import annotations

import dataclasses

import pytest

from mpo_torchrl.trainer.config import MPOConfig
from mpo_torchrl.trainer.settings import SettingError, describe_settings

FIELDS = dataclasses.fields(MPOConfig)
PUBLISHED = {
    "env": "Pendulum-v1",
    "seed": 42,
    "total_timesteps": 20_000,
    "learning_rate": 3e-4,
    "buffer_size": 1_000_000,
    "batch_size": 256,
    "gamma": 0.99,
    "tau": 0.005,
    "n_action_samples": 20,
    "epsilon": 0.1,
    "epsilon_penalty": 0.001,
    "dual_lr": 1e-2,
    "hidden": 256,
    "learning_starts": 1000,
}


@pytest.mark.parametrize(("name", "default"), PUBLISHED.items())
def test_published_defaults_hold(name, default):
    assert getattr(MPOConfig(), name) == default


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_help_shows_every_setting_with_default_meaning_and_range(field):
    line = next(
        row for row in describe_settings(MPOConfig).splitlines() if row.split()[0] == field.name
    )
    assert str(getattr(MPOConfig(), field.name)) in line
    assert field.metadata["meaning"] in line
    assert line.endswith("]")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"gamma": 1.5}, "gamma must be a number >= 0 and <= 1, got 1.5"),
        ({"tau": 0.0}, "tau must be a number > 0 and <= 1, got 0.0"),
        ({"epsilon": 0}, "epsilon must be a number > 0, got 0.0"),
        ({"epsilon": float("nan")}, "epsilon must be a number > 0, got nan"),
        ({"learning_rate": float("inf")}, "learning_rate must be a number > 0, got inf"),
        ({"n_action_samples": 0}, "n_action_samples must be a whole number >= 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number >= 1, got 2.5"),
        ({"seed": -1}, "seed must be a whole number >= 0 .*, got -1"),
        ({"seed": True}, "seed must be a whole number .*, got True"),
        ({"policy": "beta"}, "policy must be gaussian or tanh_normal or categorical, got 'beta'"),
        ({"progress_bar": 1}, "progress_bar must be true or false, got 1"),
        ({"env": 7}, "env must be text, got 7"),
        ({"device": "abacus"}, "device must be one that torch knows .*, got 'abacus'"),
        ({"device": "meta"}, "device must be available here, got 'meta' and torch finds 0 of its"),
        ({"device": "cuda:99"}, "device must be available here, got 'cuda:99'"),
        ({"total_timesteps": 999}, r"total_timesteps must be >= learning_starts \(1000"),
        ({"buffer_size": 255}, r"buffer_size must be >= batch_size \(256\), got 255"),
        ({"utd_ratio": 0.25}, r"utd_ratio \* 10 steps collected at once must be a whole number"),
        ({"num_envs": 8, "utd_ratio": 0.1}, r"utd_ratio \* 16 steps .* change it or steps_per_"),
        ({"vmin": 5.0, "vmax": 5.0}, r"vmax must be > vmin \(5.0\), got 5.0"),
        (
            {"policy": "categorical", "critic": "c51"},
            "critic must be scalar with policy=categorical, got c51",
        ),
        ({"num_atoms": 1}, "num_atoms must be a whole number >= 2, got 1"),
        (
            {"sequence_length": 7},
            r"batch_size must be a multiple of sequence_length \(7\), got 256",
        ),
        ({"sequence_length": 8, "n_step": 3}, "n_step must be 1 with sequence_length=8, got 3"),
        ({"recurrent": "gru"}, "sequence_length must be > 1 with recurrent=gru, got 1"),
        (
            {"recurrent": "gru", "sequence_length": 8, "policy": "categorical"},
            "recurrent must be none with policy=categorical, got gru",
        ),
        (
            {"recurrent": "gru", "sequence_length": 8, "burn_in": 8},
            r"burn_in must be < sequence_length \(8\), .*, got 8 with recurrent=gru",
        ),
        (
            {"sequence_length": 8, "burn_in": 2},
            "burn_in must be .* 0 with recurrent=none, got 2 with recurrent=none",
        ),
        (
            {"value_estimator": "retrace"},
            "sequence_length must be > 1 with value_estimator=retrace, got 1",
        ),
        (
            {"sequence_length": 8, "value_estimator": "retrace", "critic": "quantile"},
            "value_estimator must be td0 with critic=quantile, got retrace",
        ),
        (
            {"sequence_length": 8, "value_estimator": "retrace", "policy": "categorical"},
            "value_estimator must be td0 or td_lambda with policy=categorical, got retrace",
        ),
        (
            {"n_step": 5, "learning_starts": 0},
            r"learning_starts must be > n_step \* num_envs",
        ),
    ],
)
def test_an_impossible_value_is_named_with_its_range(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        MPOConfig(**settings)


def test_an_unknown_name_brings_the_nearest_one():
    with pytest.raises(SettingError, match="'lerning_rate' is not a setting.*'learning_rate'"):
        MPOConfig.from_mapping({"lerning_rate": 1e-3})


def test_a_setting_error_is_a_value_error():
    assert issubclass(SettingError, ValueError)


def test_random_steps_come_in_whole_batches():
    assert MPOConfig(learning_starts=1001, steps_per_batch=10).random_steps == 1010


def test_updates_per_batch_follow_the_ratio():
    assert MPOConfig(steps_per_batch=10, utd_ratio=0.5).updates_per_batch == 5


def test_a_batch_holds_whole_steps_of_all_environments():
    config = MPOConfig(num_envs=8, steps_per_batch=10)
    assert (config.batch_steps, config.updates_per_batch, config.random_steps) == (16, 16, 1008)


def test_lists_are_not_shared():
    MPOConfig().actor_cells.append(3)
    assert MPOConfig().actor_cells == []


def test_settings_survive_a_file():
    config = MPOConfig(env="HalfCheetah-v5", epsilon=0.2, critic_cells=[512, 256])
    assert MPOConfig.from_mapping(config.to_dict()) == config


if __name__ == "__main__":
    pytest.main([__file__])
