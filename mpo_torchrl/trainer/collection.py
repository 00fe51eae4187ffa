"""From the environment to the replay buffer: collect, check, keep what learning reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, ReplayBuffer
from torchrl.envs import EnvBase, MultiStepTransform, RewardScaling
from torchrl.envs.utils import ExplorationType
from torchrl.modules import ProbabilisticActor

from mpo_torchrl.trainer.config import MPOConfig, RunConfig
from mpo_torchrl.trainer.normalizer import NormalizeReplay, ObservationNormalizer
from mpo_torchrl.trainer.policy import SamplingPolicy, SequencePolicy
from mpo_torchrl.trainer.sequences import TRAJECTORY, make_sequence_buffer


class NonFiniteError(ValueError):
    """A NaN or an infinity where learning needs a number.

    Examples:
        >>> from tensordict import TensorDict
        >>> from mpo_torchrl.trainer import total_loss
        >>> total_loss(TensorDict(loss_actor=torch.tensor(float("nan"))))
        Traceback (most recent call last):
        ...
        mpo_torchrl.trainer.collection.NonFiniteError: the loss is not finite: {'loss_actor': nan}.
    """


def make_collector(
    env: EnvBase,
    actor: ProbabilisticActor,
    config: RunConfig,
    normalizer: nn.Module | None = None,
    *,
    random_steps: int | None = None,
) -> Collector:
    """Endless batches of ``steps_per_batch`` transitions: random actions first, then the policy's.

    Batches are ``[T]``, or ``[num_envs, T]`` with more than one environment: time comes last. The
    policy acts with a sample of its distribution. The collector never stops by itself: the loop
    that reads it counts the steps.

    Where learning is from sequences, each step knows its episode and how likely its action was.

    Args:
        env (EnvBase): what is stepped, on the CPU.
        actor (ProbabilisticActor): shares its parameters with the policy that acts.
        config (RunConfig): steps of a batch, random steps, and the device of the policy.
        normalizer (nn.Module, optional): what observations pass before the policy sees them.

    Keyword Args:
        random_steps (int, optional): uniformly random steps at first; those of the settings by
            default.

    Returns:
        Collector: TorchRL's; ``update_policy_weights_`` after each round of updates.

    Examples:
        >>> from mpo_torchrl.trainer import MPOConfig, make_loss, make_training_env
        >>> config = MPOConfig(env="Pendulum-v1", hidden=16)
        >>> env = make_training_env(config)
        >>> actor, _ = make_loss(env, config)
        >>> collector = make_collector(env, actor, config)
        >>> next(iter(collector)).shape
        torch.Size([10])
        >>> collector.shutdown()
    """
    random_steps = config.random_steps if random_steps is None else random_steps
    policy: TensorDictModuleBase = SamplingPolicy(actor, normalizer)
    if config.sequence_length > 1:
        policy = SequencePolicy(actor, normalizer, random_steps=random_steps)
        random_steps = 0  # that policy counts them itself
    # Where all is on the CPU, naming devices would only make the collector look twice a step.
    device = None if config.device == "cpu" else "cpu"
    return Collector(
        env,
        policy,
        frames_per_batch=config.batch_steps,
        total_frames=-1,
        init_random_frames=random_steps,
        policy_device=device and config.device,
        env_device=device,
        storing_device=device,
        exploration_type=ExplorationType.RANDOM,
        track_traj_ids=config.sequence_length > 1,
        auto_register_policy_transforms=False,  # the policy has no memory to be reset
    )


def make_replay_buffer(
    config: MPOConfig, normalizer: nn.Module | None = None, *, size: int | None = None
) -> ReplayBuffer:
    """Transitions in memory, sampled uniformly, or sequences; memory is taken as they arrive.

    Observations and rewards are kept as the environment gave them, and are normalized and scaled
    as they are sampled.

    Environments keep a dimension of their own: in a flat buffer the rewards of an n-step return
    would run on from the end of one environment into the start of the next.

    Args:
        config (MPOConfig): size, batch size, n-step returns, scale of the rewards.
        normalizer (nn.Module, optional): an :class:`~mpo_torchrl.trainer.ObservationNormalizer`
            learns from what comes in and is applied to what is sampled.

    Keyword Args:
        size (int, optional): room for so many transitions; by default ``buffer_size``.

    Returns:
        ReplayBuffer: TorchRL's, empty.

    Examples:
        >>> from mpo_torchrl.trainer import MPOConfig, make_training_env
        >>> config = MPOConfig(env="Pendulum-v1", batch_size=4)
        >>> buffer = make_replay_buffer(config)
        >>> _ = buffer.extend(make_training_env(config).rollout(10))
        >>> len(buffer), buffer.sample().shape
        (10, torch.Size([4]))
    """
    if config.sequence_length > 1:
        buffer: ReplayBuffer = make_sequence_buffer(config)
    else:
        ndim = 1 if config.num_envs == 1 else 2
        buffer = ReplayBuffer(
            storage=LazyTensorStorage(size or config.buffer_size, device=config.device, ndim=ndim),
            batch_size=config.batch_size,
        )
    # On the way in the last one is the first.
    if config.n_step > 1:
        buffer.append_transform(NStepReturns(config.n_step, config.gamma))
    if isinstance(normalizer, ObservationNormalizer):
        buffer.append_transform(NormalizeReplay(normalizer))
    if config.reward_scale != 1.0:
        buffer.append_transform(RewardScaling(0.0, config.reward_scale, [("next", "reward")]))
    return buffer


class NStepReturns(MultiStepTransform):
    r"""Turns steps into n-step transitions on their way into a replay buffer.

    .. math:: r_t \leftarrow \sum_{k<m} \gamma^k r_{t+k}, \qquad s'_t \leftarrow s_{t+m}

    where :math:`m` is ``n_steps``, or less where the episode ends sooner; the entry
    ``"steps_to_next_obs"`` holds :math:`m`, and the value estimator discounts the next state by
    :math:`\gamma^m`.

    TorchRL's transform leaves the done flags at step :math:`t` unless told otherwise: a
    transition that reaches a terminal state on its way would bootstrap from it. Here they are
    those of :math:`s'_t`. The last ``n_steps`` steps wait for their future; they are part of the
    ``state_dict``, and given up when a batch comes that does not continue them.

    Args:
        n_steps (int): number of rewards, at least 1.
        gamma (float): the discount.

    Keyword Args:
        reward_keys (list of NestedKey, optional): what is summed; ``["reward"]`` by default.
        done_key (NestedKey, optional): where episodes end; ``"done"`` by default.

    Examples:
        >>> from mpo_torchrl.trainer import MPOConfig, make_replay_buffer, make_training_env
        >>> config = MPOConfig(env="Pendulum-v1", n_step=3, batch_size=4)
        >>> buffer = make_replay_buffer(config)  # with NStepReturns(3, 0.99)
        >>> _ = buffer.extend(make_training_env(config).rollout(10))
        >>> len(buffer)  # the last three wait for their future
        7
        >>> buffer.sample()["steps_to_next_obs"].flatten()
        tensor([3, 3, 3, 3])
    """

    _buffer: TensorDictBase | None

    def __init__(
        self,
        n_steps: int,
        gamma: float,
        *,
        reward_keys: list[NestedKey] | None = None,
        done_key: NestedKey | None = None,
    ) -> None:
        super().__init__(n_steps, gamma, reward_keys=reward_keys, done_key=done_key, done_keys=[])

    def _inv_call(self, tensordict: TensorDictBase) -> TensorDictBase | None:
        if self._buffer is not None and not _continues(self._buffer, tensordict, self.done_key):
            self._buffer = None
        steps = super()._inv_call(tensordict)
        if steps is not None:  # what learning does not read would only fill the replay buffer
            steps = steps.exclude("gamma", "nonterminal", ("next", "original_reward"))
        return steps

    def get_extra_state(self) -> dict[str, Any] | None:
        """The steps that wait, as plain tensors."""
        if self._buffer is None:
            return None
        return {"steps": self._buffer.to_dict(), "shape": torch.tensor(self._buffer.shape)}

    def set_extra_state(self, state: dict[str, Any] | None) -> None:
        """Takes over the steps that wait."""
        if state is not None:
            self._buffer = TensorDict(state["steps"], batch_size=state["shape"].tolist())


def _continues(before: TensorDictBase, after: TensorDictBase, done_key: NestedKey) -> bool:
    """Whether one batch begins where the other one ends, in every environment ``[*B, T]``."""
    last, first = before[..., -1].get("next"), after[..., 0]
    if last.shape != first.shape:
        return False
    ended = _all_of(last.get(done_key), last.shape)
    same = torch.ones_like(ended)
    for key, shown in last.items(True, True):  # what a step begins with, and the last ended with
        begins_with = first.get(key, None)
        if isinstance(shown, Tensor) and isinstance(begins_with, Tensor):
            same &= _all_of(shown == begins_with, last.shape)
    return bool((same | ended).all())


def _all_of(entry: Tensor, batch: torch.Size) -> Tensor:
    """Whether all of an entry ``[*B, ...]`` holds: ``[*B]``."""
    return entry.reshape(*batch, -1).all(-1)


def transitions(
    batch: TensorDictBase, keys: Sequence[NestedKey], env_steps: int, limit: int
) -> TensorDictBase:
    """What learning reads of a collected batch, checked and cut where the run ends.

    Nothing else is kept but the number of the episode, where the collector counts them: the
    policy's outputs are stale while actions are random.

    Args:
        batch (TensorDictBase): ``[T]`` or ``[num_envs, T]``, as collected.
        keys (sequence of NestedKey): what learning reads, the ``in_keys`` of the loss.
        env_steps (int): steps collected before this batch.
        limit (int): steps of the whole run.

    Returns:
        TensorDictBase: ``[T']`` with ``T' = min(T, limit - env_steps)``, or ``[num_envs, T']``
        with as many steps of all environments as reach the limit.

    Raises:
        NonFiniteError: on a NaN or an infinity; the step and the key are named.

    Examples:
        >>> from mpo_torchrl.trainer import make_env
        >>> batch = make_env("Pendulum-v1").rollout(10)
        >>> keys = ["observation", "action", ("next", "reward")]
        >>> data = transitions(batch, keys, env_steps=95, limit=100)
        >>> data.shape, sorted(data.keys())
        (torch.Size([5]), ['action', 'next', 'observation'])
    """
    num_envs = batch.shape[:-1].numel()
    steps = -(-(limit - env_steps) // num_envs)
    episode = [TRAJECTORY] if TRAJECTORY in batch.keys(True) else []
    batch = batch.select(*keys, *episode)[..., :steps]
    finite = torch.stack(
        [batch.get(key).isfinite().reshape(*batch.shape, -1).all(-1) for key in keys], dim=-1
    )
    finite = finite.movedim(-2, 0)  # [T', (num_envs), K]
    if not finite.all():
        # The earliest step, its first environment, its first key.
        step, key = (~finite.flatten(0, -2)).nonzero()[0].tolist()
        step += env_steps + 1
        raise NonFiniteError(
            f"environment step {step} brought a NaN or an infinity as {keys[key]!r}."
        )
    return batch


def finished_returns(batch: TensorDictBase) -> Tensor:
    """Returns ``[E]`` of the ``E`` episodes that ended inside a collected batch.

    Of several rewards, their sum.

    Args:
        batch (TensorDictBase): ``[T]`` or ``[num_envs, T]``, as collected.

    Returns:
        Tensor: ``[E]``, undiscounted.

    Examples:
        >>> from mpo_torchrl.trainer import make_env
        >>> finished_returns(make_env("Pendulum-v1").rollout(200)).shape
        torch.Size([1])
    """
    ended = batch.get(("next", "done")).squeeze(-1)
    return batch.get(("next", "episode_reward"))[ended].sum(-1)
