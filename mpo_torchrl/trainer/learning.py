"""The learner: networks, loss, optimizer, targets, and one update of them."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal, cast

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase
from torchrl.modules import ProbabilisticActor
from torchrl.objectives import LossModule, ValueEstimators

from mpo_torchrl.critic.retrace import RETRACE
from mpo_torchrl.dual import ExactTemperature, FixedTemperature, Temperature
from mpo_torchrl.dual.multiplier import Parametrization
from mpo_torchrl.e_step import BehaviourEStep
from mpo_torchrl.loss import DiscreteMPOLoss, MPOLoss, MultiObjectiveMPOLoss
from mpo_torchrl.loss.actor import ActorLoss
from mpo_torchrl.loss.improvement import ImprovementLoss
from mpo_torchrl.modules import (
    make_actor,
    make_discrete_actor,
    make_discrete_critics,
    make_recurrent_actor,
)
from mpo_torchrl.modules.actor import PolicyKind
from mpo_torchrl.modules.recurrent import Cell
from mpo_torchrl.targets import FusedSoftUpdate, PeriodicUpdate
from mpo_torchrl.trainer.collection import NonFiniteError
from mpo_torchrl.trainer.config import MPOConfig, RunConfig
from mpo_torchrl.trainer.critics import make_critic
from mpo_torchrl.trainer.offline_config import OfflineConfig


def make_loss(env: EnvBase, config: MPOConfig) -> tuple[ProbabilisticActor, ImprovementLoss]:
    """Actor and loss for an environment; the loss owns actor, critics, targets and duals.

    Args:
        env (EnvBase): gives the sizes of observations and actions.
        config (MPOConfig): the settings of networks and loss.

    Returns:
        tuple[ProbabilisticActor, ImprovementLoss]: an :class:`~mpo_torchrl.MPOLoss`, or with
        ``policy=categorical`` a :class:`~mpo_torchrl.DiscreteMPOLoss`, on the settings' device.

    Examples:
        >>> from mpo_torchrl.trainer import MPOConfig, make_loss, make_training_env
        >>> config = MPOConfig(env="Pendulum-v1", hidden=16)

        >>> actor, loss = make_loss(make_training_env(config), config)
        >>> loss.actor_network is actor, loss.num_qvalue_nets
        (True, 2)
    """
    make = _make_discrete if config.policy == "categorical" else _make_continuous
    actor, loss = make(env, config)
    if config.value_estimator == "td0":
        loss.make_value_estimator(gamma=config.gamma)
    else:
        kind = {"td_lambda": ValueEstimators.TDLambda, "retrace": RETRACE}[config.value_estimator]
        loss.make_value_estimator(kind, gamma=config.gamma, lmbda=config.lmbda)
    return actor, loss.to(config.device)


def _make_continuous(env: EnvBase, config: MPOConfig) -> tuple[ProbabilisticActor, MPOLoss]:
    observation_size = env.observation_spec["observation"].shape[-1]
    action_spec = env.action_spec_unbatched
    make = make_actor
    if config.recurrent != "none":
        cell = cast(Cell, config.recurrent)
        make = partial(make_recurrent_actor, state_size=config.state_size, cell=cell)
    actor = make(
        observation_size,
        action_spec,
        num_cells=config.actor_cells or [config.hidden] * 2,
        policy=cast(PolicyKind, config.policy),
        init_stddev=config.init_stddev,
        min_stddev=config.min_stddev,
        max_stddev=config.max_stddev or None,
        layer_norm=config.layer_norm,
    )
    loss_class: Any = MultiObjectiveMPOLoss if config.bounds else MPOLoss
    loss = loss_class(
        actor,
        make_critic(observation_size, action_spec, config),
        **_e_step_arguments(config),
        num_qvalue_nets=config.num_critics,
        num_bootstrap_samples=config.n_bootstrap_samples,
        e_step_critic=cast(Literal["online", "target", "next"], config.e_step_critic),
        epsilon_mean=config.epsilon_mean,
        epsilon_stddev=config.epsilon_stddev,
        per_dim_constraining=config.per_dim_constraining,
        init_alpha_mean=config.init_alpha_mean,
        init_alpha_stddev=config.init_alpha_stddev,
        parametrization=cast(Parametrization, config.parametrization),
        delay_actor=config.delay_actor,
        delay_qvalue=config.delay_qvalue,
        action_spec=action_spec,
        burn_in=config.burn_in,
    )
    return actor, loss


def _e_step_arguments(config: MPOConfig) -> dict[str, Any]:
    """Part 2 and its bounds, as a loss takes them."""
    if isinstance(config, OfflineConfig):
        return {"e_step": _make_behaviour_e_step(config)}
    arguments: dict[str, Any] = {
        "num_action_samples": config.n_action_samples,
        "epsilon_penalty": config.epsilon_penalty,
        "init_penalty_temperature": config.init_penalty_temperature,
    }
    if config.temperature == "exact":
        return {**arguments, "temperature": ExactTemperature(config.epsilon)}
    arguments["init_temperature"] = config.init_temperature
    return {**arguments, "epsilon": config.bounds or config.epsilon}


def _make_behaviour_e_step(config: OfflineConfig) -> BehaviourEStep:
    """Part 2 of a run on a data set."""
    temperature: Temperature | ExactTemperature | FixedTemperature
    if config.temperature == "learned":
        temperature = Temperature(
            config.epsilon,
            config.init_temperature,
            parametrization=cast(Parametrization, config.parametrization),
        )
    elif config.temperature == "exact":
        temperature = ExactTemperature(config.epsilon)
    else:
        infinite = config.temperature == "infinite"
        temperature = FixedTemperature(math.inf if infinite else config.init_temperature)
    return BehaviourEStep(
        temperature, num_action_samples=config.n_action_samples, max_weight=config.max_weight
    )


def _make_discrete(env: EnvBase, config: MPOConfig) -> tuple[ProbabilisticActor, DiscreteMPOLoss]:
    observation_size = env.observation_spec["observation"].shape[-1]
    action_spec = env.action_spec_unbatched
    actor = make_discrete_actor(
        observation_size,
        action_spec,
        num_cells=config.actor_cells or [config.hidden] * 2,
        layer_norm=config.layer_norm,
    )
    critics = make_discrete_critics(
        observation_size,
        action_spec,
        num_critics=config.num_critics,
        num_cells=config.critic_cells or [config.hidden] * 2,
        layer_norm=config.layer_norm,
        num_blocks=config.critic_blocks,
    )
    loss = DiscreteMPOLoss(
        actor,
        critics,
        num_qvalue_nets=config.num_critics,
        e_step_critic=cast(Literal["online", "target"], config.e_step_critic),
        epsilon=config.epsilon,
        epsilon_policy=config.epsilon_policy,
        init_temperature=config.init_temperature,
        init_alpha_policy=config.init_alpha_policy,
        parametrization=cast(Parametrization, config.parametrization),
        delay_actor=config.delay_actor,
        delay_qvalue=config.delay_qvalue,
    )
    return actor, loss


def make_optimizer(loss: ActorLoss, config: RunConfig) -> torch.optim.Adam:
    """One Adam with a group for the networks and one for the duals, which must follow faster.

    With ``critic_lr`` or ``max_grad_norm`` actor and critics are two groups, each clipped on its
    own before a step; the gradients of the duals are never clipped.

    Args:
        loss (ActorLoss): what is trained.
        config (RunConfig): the learning rates, and the norm that gradients are clipped to.

    Returns:
        torch.optim.Adam: the duals are its last group.

    Examples:
        >>> from mpo_torchrl.trainer import MPOConfig, make_loss, make_training_env
        >>> config = MPOConfig(env="Pendulum-v1", hidden=16)

        >>> _, loss = make_loss(make_training_env(config), config)
        >>> [group["lr"] for group in make_optimizer(loss, config).param_groups]
        [0.0003, 0.01]
    """
    groups = [{"params": loss.network_parameters(), "lr": config.learning_rate}]
    if config.critic_lr or config.max_grad_norm:
        networks = [loss.actor_network_params, getattr(loss, f"{loss.critic_name}_params")]
        rates = [config.learning_rate, config.critic_lr or config.learning_rate]
        groups = [
            {"params": [*network.parameters()], "lr": rate}
            for network, rate in zip(networks, rates, strict=True)
        ]
    duals = {"params": loss.dual_parameters(), "lr": config.dual_lr}
    # Fused is one call for all parameters: a third of an update's fixed cost otherwise.
    optimizer = torch.optim.Adam([*groups, duals], fused=True)
    if config.max_grad_norm:

        def clip(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            for group in optimizer.param_groups[:-1]:
                torch.nn.utils.clip_grad_norm_(group["params"], config.max_grad_norm)

        optimizer.register_step_pre_hook(clip)
    return optimizer


def make_target_updater(loss: LossModule, config: MPOConfig) -> FusedSoftUpdate | PeriodicUpdate:
    """Moves every target towards its network; call ``step()`` after each update.

    By a share of ``tau`` each time, or with ``target_period`` all the way once in a while.

    Args:
        loss (LossModule): the loss whose targets follow its networks.
        config (MPOConfig): ``tau``, or ``target_period``.

    Returns:
        FusedSoftUpdate or PeriodicUpdate: with a ``state_dict``, so that a run can be continued.

    Examples:
        >>> from mpo_torchrl.trainer import MPOConfig, make_loss, make_training_env
        >>> config = MPOConfig(env="Pendulum-v1", hidden=16)

        >>> _, loss = make_loss(make_training_env(config), config)
        >>> make_target_updater(loss, config).step()
    """
    if config.target_period:
        return PeriodicUpdate(loss, period=config.target_period)
    return FusedSoftUpdate(loss, tau=config.tau)


def total_loss(losses: TensorDictBase) -> Tensor:
    """The scalar to differentiate: the sum of every key that starts with ``loss``.

    Args:
        losses (TensorDictBase): output of a loss.

    Returns:
        Tensor: ``[]``.

    Raises:
        NonFiniteError: if it is no number. Parameters are still those of the update before.

    Examples:
        >>> from tensordict import TensorDict
        >>> total_loss(TensorDict(loss_actor=torch.tensor(1.0), loss_alpha=torch.tensor(2.0)))
        tensor(3.)
    """
    parts = {key: value for key, value in losses.items() if key.startswith("loss")}
    total = torch.stack(list(parts.values())).sum()
    if not total.isfinite():
        found = {key: value.item() for key, value in parts.items()}
        raise NonFiniteError(f"the loss is not finite: {found}.")
    return total


@torch.no_grad()
def diagnose(loss: LossModule, batch: TensorDictBase) -> dict[str, float]:
    """What the loss says of a batch: its parts and the diagnostics, as numbers.

    Args:
        loss (LossModule): a loss of the family.
        batch (TensorDictBase): transitions, ``[*B]``.

    Returns:
        dict: a number for each of the loss's ``out_keys``.

    Examples:
        >>> from mpo_torchrl.trainer import MPOConfig, make_loss, make_training_env
        >>> config = MPOConfig(env="Pendulum-v1", hidden=16)

        >>> env = make_training_env(config)
        >>> _, loss = make_loss(env, config)
        >>> round(diagnose(loss, env.rollout(8))["temperature"], 3)
        1.0
    """
    return {key: value.item() for key, value in loss(batch).items()}


def is_finite(loss: LossModule) -> bool:
    """Whether every network, target and dual is free of NaN and infinity.

    Args:
        loss (LossModule): the loss that owns them.

    Returns:
        bool: false if there is any.

    Examples:
        >>> from mpo_torchrl.trainer import MPOConfig, make_loss, make_training_env
        >>> config = MPOConfig(env="Pendulum-v1", hidden=16)

        >>> _, loss = make_loss(make_training_env(config), config)
        >>> is_finite(loss)
        True
        >>> _ = next(loss.parameters()).data.fill_(float("nan"))
        >>> is_finite(loss)
        False
    """
    return all(
        bool(value.isfinite().all())
        for value in loss.state_dict().values()
        if isinstance(value, Tensor)
    )
