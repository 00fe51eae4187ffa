"""Blocks of an on-policy run: the loss, advantages of a batch, and the scale of its rewards."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import gymnasium
import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torchrl.envs import EnvBase
from torchrl.modules import ProbabilisticActor

from mpo_torchrl.dual.multiplier import Parametrization
from mpo_torchrl.loss import VMPOLoss
from mpo_torchrl.modules import make_actor, make_discrete_actor, make_value_network
from mpo_torchrl.modules.actor import PolicyKind
from mpo_torchrl.trainer.vmpo_config import VMPOConfig


def choose_policy(config: VMPOConfig) -> VMPOConfig:
    """The settings with ``policy=auto`` replaced by what the environment's actions ask for.

    Args:
        config (VMPOConfig): the settings.

    Returns:
        VMPOConfig: with ``policy`` ``categorical`` or ``gaussian``, unless it was chosen already.

    Examples:
        >>> from mpo_torchrl.trainer import VMPOConfig, choose_policy, make_training_env
        >>> config = choose_policy(VMPOConfig(env="CartPole-v1", hidden=16))

        >>> config.policy
        'categorical'
    """
    if config.policy != "auto":
        return config
    try:
        env = gymnasium.make(config.env)
    except (gymnasium.error.Error, ImportError):  # what is wrong is said where it is made
        return dataclasses.replace(config, policy="gaussian")
    discrete = isinstance(env.action_space, gymnasium.spaces.Discrete)
    env.close()
    return dataclasses.replace(config, policy="categorical" if discrete else "gaussian")


def make_vmpo_loss(env: EnvBase, config: VMPOConfig) -> tuple[ProbabilisticActor, VMPOLoss]:
    """Actor and loss for an environment; the loss owns actor, critic, target and duals.

    Args:
        env (EnvBase): gives the sizes of observations and actions.
        config (VMPOConfig): the settings of networks and loss; ``policy`` is not ``auto``.

    Returns:
        tuple[ProbabilisticActor, VMPOLoss]: on the device of the settings, with GAE as estimator.

    Examples:
        >>> from mpo_torchrl.trainer import VMPOConfig, choose_policy, make_training_env
        >>> config = choose_policy(VMPOConfig(env="CartPole-v1", hidden=16))

        >>> actor, loss = make_vmpo_loss(make_training_env(config), config)
        >>> loss.actor_network is actor
        True
    """
    observation_size = env.observation_spec["observation"].shape[-1]
    action_spec = env.action_spec_unbatched
    actor_cells = config.actor_cells or [config.hidden] * 2
    if config.policy == "categorical":
        actor = make_discrete_actor(
            observation_size, action_spec, num_cells=actor_cells, layer_norm=config.layer_norm
        )
    else:
        actor = make_actor(
            observation_size,
            action_spec,
            num_cells=actor_cells,
            policy=cast(PolicyKind, config.policy),
            init_stddev=config.init_stddev,
            min_stddev=config.min_stddev,
            max_stddev=config.max_stddev or None,
            layer_norm=config.layer_norm,
        )
    critic = make_value_network(
        observation_size,
        num_cells=config.critic_cells or [config.hidden] * 2,
        layer_norm=config.layer_norm,
    )
    loss = VMPOLoss(
        actor,
        critic,
        top_k_fraction=config.top_k_fraction,
        epsilon=config.epsilon,
        epsilon_mean=config.epsilon_mean,
        epsilon_stddev=config.epsilon_stddev,
        epsilon_policy=config.epsilon_policy,
        per_dim_constraining=config.per_dim_constraining,
        init_temperature=config.init_temperature,
        init_alpha_mean=config.init_alpha_mean,
        init_alpha_stddev=config.init_alpha_stddev,
        init_alpha_policy=config.init_alpha_policy,
        parametrization=cast(Parametrization, config.parametrization),
    )
    loss.make_value_estimator(gamma=config.gamma, lmbda=config.gae_lambda)
    return actor, loss.to(config.device)


def minibatches(steps: TensorDictBase, size: int) -> tuple[TensorDictBase, ...]:
    """One pass over steps ``[num_steps]`` in a random order, ``size`` at a time.

    TorchRL's SamplerWithoutReplacement draws the order of the next pass before it is asked for; a
    run that continues could not know it.

    Args:
        steps (TensorDictBase): ``[num_steps]``.
        size (int): steps of each batch but, if it does not divide them, the last.

    Returns:
        tuple[TensorDictBase, ...]: ``[size]`` each.

    Examples:
        >>> from tensordict import TensorDict
        >>> steps = TensorDict(reward=torch.zeros(10, 1), batch_size=10)
        >>> [len(batch) for batch in minibatches(steps, size=5)]
        [5, 5]
    """
    order = torch.randperm(len(steps))
    return steps[order.to(steps.device)].split(size)


@torch.no_grad()
def add_advantages(loss: VMPOLoss, data: TensorDictBase) -> TensorDictBase:
    """Steps ``[T]`` or ``[num_envs, T]`` with advantages and value targets, as ``[num_steps]``.

    Args:
        loss (VMPOLoss): its value estimator and critic.
        data (TensorDictBase): ``[T]`` or ``[num_envs, T]``, in the order of time.

    Returns:
        TensorDictBase: ``[num_steps]``, with ``"advantage"`` and ``"value_target"``.

    Examples:
        >>> from mpo_torchrl.trainer import VMPOConfig, choose_policy, make_training_env
        >>> config = choose_policy(VMPOConfig(env="CartPole-v1", hidden=16))

        >>> env = make_training_env(config)
        >>> _, loss = make_vmpo_loss(env, config)
        >>> steps = add_advantages(loss, env.rollout(5, break_when_any_done=False))
        >>> steps.shape, steps["advantage"].shape
        (torch.Size([40]), torch.Size([40, 1]))
    """
    data = loss.value_estimator(
        data,
        params=loss.critic_network_params.detach(),
        target_params=loss.target_critic_network_params,
    )
    return data.reshape(-1)


class RewardScale(nn.Module):
    r"""Divides rewards by the running stddev of the discounted return.

    .. math:: R_t = \gamma (1 - d_{t-1}) R_{t-1} + r_t, \qquad r_t \leftarrow r_t / \sigma(R)

    The critic then learns numbers near 1, whatever the unit of the reward.

    Args:
        gamma (float): the discount.

    Examples:
        >>> import torch
        >>> scale = RewardScale(gamma=0.0)
        >>> scale(torch.tensor([[[0.0], [4.0]]]), torch.zeros(1, 2, 1, dtype=torch.bool))
        tensor([[[0.],
                 [2.]]])
    """

    returns: Tensor | None
    moments: Tensor

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma
        self.returns = None
        self.register_buffer("moments", torch.zeros(3, dtype=torch.float64))  # sums of 1, R, R^2

    @torch.no_grad()
    def forward(self, reward: Tensor, done: Tensor) -> Tensor:
        """Rewards ``[*B, T, 1]`` in their new unit, after the statistics took them in."""
        running = torch.zeros_like(reward[..., 0, :]) if self.returns is None else self.returns
        returns = []
        for step in range(reward.shape[-2]):
            running = self.gamma * running + reward[..., step, :]
            returns.append(running)
            running = running.masked_fill(done[..., step, :], 0.0)
        self.returns = running
        seen = torch.stack(returns).double()
        sums = [torch.ones_like(seen).sum(), seen.sum(), seen.square().sum()]
        self.moments += torch.stack(sums)
        count, first, second = self.moments
        variance = second / count - (first / count).square()
        return reward / variance.clamp(min=1e-8).sqrt().to(reward.dtype)

    def get_extra_state(self) -> dict[str, Any]:
        """The returns of the episodes under way."""
        return {} if self.returns is None else {"returns": self.returns}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes them over."""
        self.returns = state.get("returns")
