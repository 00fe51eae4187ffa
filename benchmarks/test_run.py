"""Whole runs on Pendulum: the recipe with one update a step, and collection alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import gymnasium
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.envs.utils import ExplorationType, set_exploration_type

from benchmarks.workloads import NEEDS_COMPILER
from mpo_torchrl.trainer import MPOConfig, make_collector, make_env, make_loss
from recipes import mpo

ENV = "Pendulum-v1"


# Compiling takes seconds that differ from run to run: more steps, so that they do not matter.
@pytest.mark.parametrize(
    ("mode", "steps"),
    [("eager", 200), pytest.param("compiled", 1000, marks=NEEDS_COMPILER)],
    ids=["eager", "compiled"],
)
def test_recipe(mode: str, steps: int, alternate, report, tmp_path: Path) -> None:
    from rlox.algorithms.mpo import MPO

    random_steps = 260
    agent = MPO(ENV, learning_starts=random_steps)
    agent.train(random_steps)
    agent.config.learning_starts = 0  # from here on, each step of rlox is a step with an update
    runs = itertools.count()

    def run(total_timesteps: int) -> None:
        mpo.train(
            MPOConfig(
                env=ENV,
                total_timesteps=total_timesteps,
                learning_starts=random_steps,
                utd_ratio=1.0,
                compile=mode == "compiled",
                eval_episodes=1,
                eval_every=10**9,
                progress_bar=False,
                run_dir=str(tmp_path / f"{next(runs)}"),
            )
        )

    # What a run costs beside its steps is measured and taken off: a start and one evaluation.
    ours, fixed, peer = alternate(
        lambda: run(random_steps + steps),
        lambda: run(random_steps + 10),
        lambda: agent.train(steps),
        rounds=3,
        warmup=1,
    )
    rate, peer_rate = (steps - 10) / (ours - fixed), steps / peer
    report(
        f"{ENV}: recipe's steps/s, {mode} / rlox's, an update each step",
        rate / peer_rate,
        at_least=5,
        detail=f"{rate:.0f}/s, {peer_rate:.0f}/s",
    )


def test_collection(alternate, report) -> None:
    steps = 500
    config = MPOConfig(env=ENV, learning_starts=0)
    env = make_env(ENV)
    actor, _ = make_loss(env, config)
    collector = make_collector(env, actor, config)
    batches = iter(collector)
    network = actor[0].module

    def collect() -> None:
        for _ in range(steps // config.steps_per_batch):
            next(batches)

    def same_policy(observation: Tensor) -> Tensor:
        return actor(TensorDict(observation=observation))["action"]

    def bare_network(observation: Tensor) -> Tensor:
        return torch.normal(*network(observation))

    loops = [bare_loop(policy, steps) for policy in (same_policy, bare_network)]
    ours, same, bare = alternate(collect, *loops, rounds=10, warmup=2)
    collector.shutdown()
    for name, seconds, at_least in (("same policy", same, 0.5), ("its network alone", bare, None)):
        report(
            f"{ENV}: collector's steps/s / those of a bare loop, {name}",
            seconds / ours,
            at_least=at_least,
            detail=f"{steps / ours:.0f}/s, {steps / seconds:.0f}/s",
        )


def bare_loop(policy: Callable[[Tensor], Tensor], steps: int) -> Callable[[], None]:
    """A loop over Gymnasium as one writes it by hand."""
    env = gymnasium.make(ENV)
    low, high = env.action_space.low, env.action_space.high  # type: ignore[attr-defined]
    observation, _ = env.reset(seed=0)

    @torch.no_grad()
    def loop() -> None:
        nonlocal observation
        with set_exploration_type(ExplorationType.RANDOM):
            for _ in range(steps):
                action = policy(torch.as_tensor(observation)).numpy().clip(low, high)
                observation, _, terminated, truncated, _ = env.step(action)
                if terminated or truncated:
                    observation, _ = env.reset()

    return loop
