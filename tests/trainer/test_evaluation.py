from __future__ import annotations

import pytest
import torch
from tensordict.nn import TensorDictModule

from mpo_torchrl.trainer import MPOTrainer, evaluate, make_env, make_evaluation_env
from tests.trainer.small import small_config


def zero_policy() -> TensorDictModule:
    return TensorDictModule(lambda observation: torch.zeros(*observation.shape[:-1], 1),
                            in_keys=["observation"], out_keys=["action"])  # fmt: skip


def test_there_is_one_return_an_episode():
    env = make_evaluation_env(small_config(eval_episodes=3))
    returns = evaluate(env, zero_policy(), seed=0)
    assert returns.shape == (3,)
    assert returns.unique().numel() == 3


def test_returns_are_those_of_whole_episodes():
    env = make_evaluation_env(small_config(eval_episodes=1))
    alone = make_env("Pendulum-v1")
    alone.set_seed(7)
    rewards = alone.rollout(500, zero_policy())["next", "reward"]
    assert rewards.shape[0] == 200
    torch.testing.assert_close(evaluate(env, zero_policy(), seed=7), rewards.sum(0))


def test_every_evaluation_starts_from_the_same_states():
    env = make_evaluation_env(small_config(eval_episodes=2))
    first, second = (evaluate(env, zero_policy()) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, evaluate(env, zero_policy(), seed=6))


def test_runs_of_different_seeds_are_evaluated_alike():
    first, second = (
        evaluate(make_evaluation_env(small_config(seed=seed)), zero_policy()) for seed in (1, 2)
    )
    assert torch.equal(first, second)


def test_an_episode_without_an_end_is_cut(monkeypatch):
    monkeypatch.setattr("mpo_torchrl.trainer.evaluation.MAX_EPISODE_STEPS", 7)
    env = make_evaluation_env(small_config(eval_episodes=1))
    alone = make_env("Pendulum-v1")
    alone.set_seed(7)
    expected = alone.rollout(7, zero_policy())["next", "reward"].sum(0)
    torch.testing.assert_close(evaluate(env, zero_policy(), seed=7), expected)


def test_evaluation_does_not_change_training():
    parameters = []
    for every in (10, 10_000):
        trainer = MPOTrainer.from_config(small_config(eval_every=every))
        trainer.train()
        parameters.append([p.detach().clone() for p in trainer.loss_module.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*parameters, strict=True))


if __name__ == "__main__":
    pytest.main([__file__])
