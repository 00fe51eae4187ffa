"""Runs with discrete actions: ``policy=categorical``."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torchrl.envs.utils import ExplorationType, set_exploration_type

from mpo_torchrl import DiscreteMPOLoss
from mpo_torchrl.trainer import (
    MPOConfig,
    MPOTrainer,
    SamplingPolicy,
    SettingError,
    make_env,
    make_loss,
    make_training_env,
)
from tests.trainer.small import small_config

SETTINGS = {"env": "CartPole-v1", "policy": "categorical"}


def test_a_run_trains_every_parameter_of_the_discrete_loss():
    trainer = MPOTrainer.from_config(small_config(**SETTINGS))
    assert isinstance(trainer.loss_module, DiscreteMPOLoss)
    before = {name: p.clone() for name, p in trainer.loss_module.named_parameters()}
    metrics = trainer.train()
    after = dict(trainer.loss_module.named_parameters())
    assert [name for name, value in before.items() if torch.equal(value, after[name])] == []
    assert metrics["eval_return_mean"] >= 8  # the shortest an episode can be
    assert {"kl_policy", "kl_e_step", "temperature"} < set(metrics)


def test_n_step_returns_and_several_environments_serve_discrete_actions_too():
    settings = {**SETTINGS, "n_step": 3, "num_envs": 2, "normalize_observation": True}
    assert MPOTrainer.from_config(small_config(**settings)).train()["env_steps"] == 60


def test_a_saved_trainer_comes_back_with_its_policy(tmp_path):
    trainer = MPOTrainer.from_config(small_config(**SETTINGS))
    trainer.train()
    loaded = MPOTrainer.load(trainer.save(tmp_path / "checkpoint.zip"))
    observation = torch.randn(20, 4)
    assert torch.equal(loaded.policy(observation), trainer.policy(observation))


def test_the_policy_for_use_takes_the_likeliest_action():
    trainer = MPOTrainer.from_config(small_config(**SETTINGS))
    observation = torch.randn(50, 4)
    actor = trainer.loss_module.actor_network
    logits = actor.get_dist(TensorDict(observation=observation, batch_size=50)).logits
    assert torch.equal(trainer.policy(observation).long().argmax(-1), logits.argmax(-1))


def test_collection_draws_what_the_actor_would_draw():
    config = small_config(**SETTINGS)
    actor, _ = make_loss(make_training_env(config), config)
    states = TensorDict(observation=torch.randn(50, 4), batch_size=50)
    torch.manual_seed(5)
    collected = SamplingPolicy(actor)(states.copy())["action"]
    torch.manual_seed(5)
    with set_exploration_type(ExplorationType.RANDOM):
        assert torch.equal(collected, actor(states.copy())["action"])


def test_a_box_of_actions_is_refused():
    with pytest.raises(SettingError, match=r"one discrete action for policy=categorical, got B"):
        make_env("Pendulum-v1", discrete=True)


def test_discrete_actions_are_refused_with_the_policy_for_them():
    with pytest.raises(SettingError, match="learn those with policy=categorical"):
        make_env("CartPole-v1")


@pytest.mark.parametrize(("name", "value"), [("temperature", "exact"), ("e_step_critic", "next")])
def test_settings_that_a_categorical_policy_lacks_are_refused(name, value):
    with pytest.raises(SettingError, match=rf"{name} must be .* with policy=categorical"):
        MPOConfig(**SETTINGS, **{name: value})


if __name__ == "__main__":
    pytest.main([__file__])
