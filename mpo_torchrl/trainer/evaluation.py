"""Evaluation: whole episodes with the mean action, apart from training."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.envs import EnvBase, SerialEnv

from mpo_torchrl.trainer.checkpoint import load_checkpoint, read_config, read_metadata
from mpo_torchrl.trainer.config import MPOConfig, RunConfig
from mpo_torchrl.trainer.environment import env_settings, make_env
from mpo_torchrl.trainer.learning import make_loss
from mpo_torchrl.trainer.normalizer import make_normalizer
from mpo_torchrl.trainer.offline_config import OfflineConfig
from mpo_torchrl.trainer.on_policy import make_vmpo_loss
from mpo_torchrl.trainer.policy import MeanPolicy
from mpo_torchrl.trainer.seeding import keep_random_state, seed_everything
from mpo_torchrl.trainer.vmpo_config import VMPOConfig

MAX_EPISODE_STEPS = 10_000
"""An episode is cut here: an environment without an end must not hold up the run."""

EVALUATION_SEED = 1_000_000
"""Every evaluation of every run starts from the same states: two differ by the policy alone."""


def make_evaluation_env(config: RunConfig) -> EnvBase:
    """One environment for each episode of an evaluation, stepped together.

    Args:
        config (RunConfig): which environment, and ``eval_episodes``, ``K``.

    Returns:
        EnvBase: ``[K]``; random states of the training are as they were.

    Examples:
        >>> make_evaluation_env(MPOConfig(env="Pendulum-v1", eval_episodes=3)).batch_size
        torch.Size([3])
    """
    with keep_random_state():
        make_one = partial(make_env, config.env, **env_settings(config))
        return SerialEnv(config.eval_episodes, make_one)


def evaluate(env: EnvBase, policy: TensorDictModuleBase, seed: int = EVALUATION_SEED) -> Tensor:
    """Undiscounted returns ``[E]`` of one episode in each of the ``E`` environments.

    ``[E, K]`` where each step has ``K`` rewards. Nothing random of the training is touched.

    Args:
        env (EnvBase): ``E`` environments, from :func:`make_evaluation_env`.
        policy (TensorDictModuleBase): what to play, e.g. a
            :class:`~mpo_torchrl.trainer.MeanPolicy`.
        seed (int): fixes the states that episodes start from.

    Returns:
        Tensor: ``[E]``, or ``[E, K]``, unit of reward; an episode counts for at most 10,000 steps.

    Examples:
        >>> from mpo_torchrl.trainer import MeanPolicy, make_loss
        >>> config = MPOConfig(env="Pendulum-v1", hidden=16, eval_episodes=2)
        >>> env = make_evaluation_env(config)
        >>> actor, _ = make_loss(env, config)
        >>> evaluate(env, MeanPolicy(actor)).shape
        torch.Size([2])
    """
    with keep_random_state(), torch.no_grad():
        seed_everything(seed)
        env.set_seed(seed)
        returns = torch.zeros(env.reward_spec.shape)  # [E, K]
        running = torch.ones(env.batch_size, dtype=torch.bool)
        state = env.reset()
        for _ in range(MAX_EPISODE_STEPS):
            step, state = env.step_and_maybe_reset(policy(state))
            returns += step["next", "reward"] * running.unsqueeze(-1)
            running &= ~step["next", "done"].squeeze(-1)
            if not running.any():
                break
    return returns.squeeze(-1)


def load_policy(checkpoint: str | Path) -> tuple[MeanPolicy, Any, dict[str, int]]:
    """The policy of a checkpoint without its trainer, the run's settings and its counters.

    Raises:
        CheckpointError: if the file is missing, damaged, of other dimensions or no checkpoint.
        SettingError: if the environment cannot be made here.
    """
    settings = read_metadata(checkpoint)["config"]
    on_policy = "top_k_fraction" in settings
    of_mpo = OfflineConfig if "dataset" in settings else MPOConfig
    config = read_config(checkpoint, VMPOConfig if on_policy else of_mpo)
    env = make_env(config.env, **env_settings(config))
    if on_policy:
        actor, loss = make_vmpo_loss(env, config)
        normalizer = None
    else:
        actor, loss = make_loss(env, config)
        normalizer = make_normalizer(env, loss, config)
    env.close()
    counters = load_checkpoint(checkpoint, loss=loss)
    if isinstance(config, OfflineConfig):
        counters["env_steps"] = 0  # as in metrics.json: what it counts there are updates
    return MeanPolicy(actor, normalizer), config, counters
