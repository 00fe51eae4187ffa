"""From the environment to the replay buffer: collect, check, keep what learning reads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, ReplayBuffer
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType

from mpo_torchrl.trainer.config import MPOConfig


class NonFiniteError(ValueError):
    """A NaN or an infinity where learning needs a number."""


def make_collector(env: EnvBase, policy: TensorDictModuleBase, config: MPOConfig) -> Collector:
    """Endless batches of ``steps_per_batch`` transitions: random actions first, then the policy's.

    The policy acts with a sample of its distribution. The collector never stops by itself: the
    loop that reads it counts the steps.
    """
    return Collector(
        env,
        policy,
        frames_per_batch=config.steps_per_batch,
        total_frames=-1,
        init_random_frames=config.random_steps,
        policy_device=config.device,
        env_device="cpu",
        storing_device="cpu",
        exploration_type=ExplorationType.RANDOM,
        track_traj_ids=False,
        auto_register_policy_transforms=False,  # the policy has no memory to be reset
    )


def make_replay_buffer(config: MPOConfig) -> ReplayBuffer:
    """Transitions in memory, sampled uniformly; memory is taken as they arrive."""
    storage = LazyTensorStorage(config.buffer_size, device=config.device)
    return ReplayBuffer(storage=storage, batch_size=config.batch_size)


def transitions(
    batch: TensorDictBase, keys: Sequence[NestedKey], env_steps: int, limit: int
) -> TensorDictBase:
    """What learning reads of a collected batch, checked and cut where the run ends.

    Nothing else is kept: the policy's outputs are stale while actions are random.

    Args:
        batch (TensorDictBase): ``[T]``, as collected.
        keys (sequence of NestedKey): what learning reads, the ``in_keys`` of the loss.
        env_steps (int): steps collected before this batch.
        limit (int): steps of the whole run.

    Returns:
        TensorDictBase: ``[T']`` with ``T' = min(T, limit - env_steps)``.

    Raises:
        NonFiniteError: on a NaN or an infinity; the step and the key are named.
    """
    batch = batch.select(*keys)[: limit - env_steps]
    finite = torch.stack([batch.get(key).isfinite().all(-1) for key in keys], dim=-1)  # [T', K]
    if not finite.all():
        step, key = (~finite).nonzero()[0].tolist()  # the earliest step, its first key
        step += env_steps + 1
        raise NonFiniteError(
            f"environment step {step} brought a NaN or an infinity as {keys[key]!r}."
        )
    return batch


def finished_returns(batch: TensorDictBase) -> Tensor:
    """Returns ``[K]`` of the ``K`` episodes that ended inside a collected batch."""
    return batch.get(("next", "episode_reward"))[batch.get(("next", "done"))]
