"""Runs on environments with several rewards: ``epsilons=[...]``."""

from __future__ import annotations

import csv
import dataclasses
import json

import gymnasium
import numpy as np
import pytest
import torch
from tensordict.nn import TensorDictModule

from mpo_torchrl import MultiObjectiveMPOLoss
from mpo_torchrl.trainer import (
    MPOConfig,
    MPOTrainer,
    Progress,
    SettingError,
    VMPOConfig,
    evaluate,
    finished_returns,
    make_env,
    make_evaluation_env,
    make_training_env,
)
from mpo_torchrl.trainer.evaluation import load_policy
from recipes import evaluate as evaluate_recipe
from recipes import mpo
from tests.trainer.small import small_config


class Walk(gymnasium.Env):
    """A point on a line for seven steps: where it is, and what the step cost."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, num_rewards: int = 2) -> None:
        self.reward_space = gymnasium.spaces.Box(-np.inf, np.inf, (num_rewards,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.steps = self.np_random.normal(size=1).astype(np.float32), 0
        return self.position, {}

    def step(self, action):
        self.position, self.steps = self.position + 0.1 * action, self.steps + 1
        rewards = np.concatenate([self.position, -np.square(action)]).astype(np.float32)
        rewards = rewards[: self.reward_space.shape[0]]
        return self.position.astype(np.float32), rewards, False, self.steps >= 7, {}


gymnasium.register("TwoRewards-v0", entry_point=Walk, disable_env_checker=True)

SETTINGS = {"env": "TwoRewards-v0", "epsilons": [0.1, 0.01], "objectives": ["place", "effort"]}


def config(**settings) -> MPOConfig:
    return small_config(**{**SETTINGS, "eval_episodes": 3, **settings})


def push(action: float) -> TensorDictModule:
    return TensorDictModule(
        lambda observation: torch.full_like(observation, action),
        in_keys=["observation"],
        out_keys=["action"],
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"policy": "tanh_normal", "e_step_critic": "next"},
        {"num_envs": 2, "n_step": 3, "normalize_observation": True, "reward_scale": 0.1},
    ],
    ids=["defaults", "squashed", "collecting"],
)
def test_a_run_trains_every_parameter(settings):
    trainer = MPOTrainer.from_config(config(**settings))
    assert isinstance(trainer.loss_module, MultiObjectiveMPOLoss)
    before = {name: p.clone() for name, p in trainer.loss_module.named_parameters()}
    metrics = trainer.train()
    after = dict(trainer.loss_module.named_parameters())
    assert [name for name, value in before.items() if torch.equal(value, after[name])] == []
    assert {"temperature_place", "temperature_effort", "kl_e_step_effort"} < set(metrics)


def test_the_bounds_of_the_settings_arrive_under_their_names():
    loss = MPOTrainer.from_config(config()).loss_module
    bounds = {name: float(bound) for name, bound in loss.epsilon.items()}
    assert bounds == pytest.approx({"place": 0.1, "effort": 0.01})


def test_rewards_without_names_are_numbered():
    assert config(objectives=[]).bounds == {"reward0": 0.1, "reward1": 0.01}


def test_recipe_and_trainer_agree_bitwise(tmp_path):
    settings = config(run_dir=str(tmp_path))
    mpo.train(settings)
    recipe = MPOTrainer.load(tmp_path / "checkpoint.zip").loss_module.state_dict()
    trainer = MPOTrainer.from_config(dataclasses.replace(settings, run_dir=""))
    trainer.train()
    for name, value in trainer.loss_module.state_dict().items():
        assert not torch.is_tensor(value) or torch.equal(value, recipe[name]), name


def test_table_and_metrics_hold_the_return_of_each_reward_and_their_sum(tmp_path):
    mpo.train(config(run_dir=str(tmp_path)))
    rows = list(csv.DictReader((tmp_path / "progress.csv").open()))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert len(rows) == 2
    for row in (*rows, metrics):
        parts = [float(row[f"eval_return_mean_{name}"]) for name in ("place", "effort")]
        assert sum(parts) == pytest.approx(float(row["eval_return_mean"]), abs=1e-5)
    assert metrics["mean_reward"] == metrics["eval_return_mean"]


def test_an_evaluation_sums_each_reward_over_its_episode():
    env, alone = make_evaluation_env(config()), make_env("TwoRewards-v0", num_rewards=2)
    returns = evaluate(env, push(0.5), seed=7)
    assert returns.shape == (3, 2)
    alone.set_seed(7)
    expected = alone.rollout(50, push(0.5))["next", "reward"].sum(0)
    torch.testing.assert_close(returns[0], expected)
    torch.testing.assert_close(returns[:, 1], torch.full((3,), -7 * 0.25))


def test_the_best_evaluation_is_the_one_with_the_largest_sum():
    progress = Progress(["place", "effort"])
    assert progress.note(torch.tensor([[1.0, -1.0], [3.0, -2.0]]))
    assert not progress.note(torch.tensor([[9.0, -9.0], [9.0, -9.0]]))
    assert progress.note(torch.tensor([[2.0, 0.0], [2.0, -1.0]]))
    assert progress.returns == [2.0, 1.0]
    assert progress.objective_means == {"place": 2.0, "effort": -0.5}


def test_the_return_of_a_finished_episode_is_the_sum_of_its_rewards():
    env = make_training_env(config(num_envs=2))
    batch = env.rollout(10, push(1.0), break_when_any_done=False)  # [envs, T]
    rewards = batch["next", "reward"][:, :7].sum((1, 2))
    torch.testing.assert_close(finished_returns(batch), rewards)


def test_a_held_action_sums_each_reward():
    once = make_env("TwoRewards-v0", num_rewards=2)
    held = make_env("TwoRewards-v0", num_rewards=2, action_repeat=3)
    for env in (once, held):
        env.set_seed(1)
    each = once.rollout(3, push(0.5))["next", "reward"]
    torch.testing.assert_close(held.rollout(1, push(0.5))["next", "reward"][0], each.sum(0))


def test_n_step_returns_are_those_of_each_reward():
    trainer = MPOTrainer.from_config(config(n_step=3, gamma=0.5))
    batch = next(iter(trainer.collector)).select(*trainer.loss_module.in_keys)
    rewards = batch["next", "reward"].clone()
    trainer.replay_buffer.extend(batch)
    kept = trainer.replay_buffer[:]["next", "reward"]
    torch.testing.assert_close(kept[0], rewards[0] + 0.5 * rewards[1] + 0.25 * rewards[2])


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path):
    digests = []
    for folder, stops in (("once", [100]), ("twice", [50, 100])):
        for stop in stops:
            settings = config(run_dir=str(tmp_path / folder), total_timesteps=stop)
            metrics = mpo.train(settings)
        digests.append({name: metrics[name] for name in metrics if name != "wall_seconds"})
    assert digests[0] == digests[1]


def test_a_saved_policy_comes_back(tmp_path):
    trainer = MPOTrainer.from_config(config())
    policy, loaded, _ = load_policy(trainer.save(tmp_path / "checkpoint.zip", learner_only=True))
    observation = torch.randn(5, 1)
    assert torch.equal(policy(observation), trainer.policy(observation))
    assert loaded.bounds == {"place": 0.1, "effort": 0.01}


def test_a_saved_policy_is_evaluated_under_each_reward(tmp_path):
    trainer = MPOTrainer.from_config(config())
    path = trainer.save(tmp_path / "checkpoint.zip", learner_only=True)
    figures = evaluate_recipe.evaluate_run(evaluate_recipe.Settings(run=str(path), episodes=2))
    parts = [figures[f"eval_return_mean_{name}"] for name in ("place", "effort")]
    assert sum(parts) == pytest.approx(figures["mean_reward"], abs=1e-5)
    assert len(figures["returns"]) == 2


def test_an_environment_of_mo_gymnasium_is_known_by_its_name():
    env = make_env("mo-mountaincarcontinuous-v0", num_rewards=2)
    assert env.rollout(3)["next", "reward"].shape == (3, 2)
    same = make_env("mo_gymnasium:mo-mountaincarcontinuous-v0", num_rewards=2)
    assert same.reward_spec == env.reward_spec


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (MPOConfig(env="TwoRewards-v0"), r"got 2 reward\(s\) for 1"),
        (config(epsilons=[0.1, 0.1, 0.1], objectives=[]), r"got 2 reward\(s\) for 3"),
        (config(env="Pendulum-v1"), r"got 1 reward\(s\) for 2"),
        (VMPOConfig(env="TwoRewards-v0", policy="gaussian"), r"got 2 .* recipes/mpo.py learns fr"),
    ],
    ids=["scalar loss", "too many bounds", "one reward", "V-MPO"],
)
def test_another_number_of_rewards_than_bounds_is_refused(settings, found):
    with pytest.raises(SettingError, match=rf"must have as many rewards as epsilons.*{found}"):
        make_training_env(settings)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"epsilons": [0.1]}, r"a bound for each of two rewards or more, got \[0.1\]"),
        ({"epsilons": [0.1, 0]}, r"epsilons must be a list of numbers each > 0, got \[0.1, 0.0\]"),
        ({"epsilons": 0.1}, r"epsilons must be a list of numbers each > 0, got 0.1"),
        ({"epsilons": [], "objectives": ["a", "b"]}, r"two rewards or more, got \[\]"),
        ({"objectives": ["a"]}, r"objectives must name each of the 2 rewards .* got \['a'\]"),
        ({"objectives": ["a", "a"]}, r"objectives must be different names .* got 'a'"),
        ({"objectives": ["a.b", "c"]}, r"objectives must be .* letters, digits .* got 'a.b'"),
        ({"objectives": ["loss", "c"]}, r"not those of PyTorch's modules, got 'loss'"),
        ({"objectives": [1, 2]}, r"objectives must be a list of names, got \[1, 2\]"),
        ({"critic": "c51"}, r"critic must be scalar with epsilons, got c51"),
        ({"temperature": "exact"}, r"temperature must be learned with epsilons, got exact"),
        ({"policy": "categorical"}, r"policy must be gaussian or tanh_normal with epsilons"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused_in_one_sentence(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        config(**settings)


if __name__ == "__main__":
    pytest.main([__file__])
