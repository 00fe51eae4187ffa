"""MPO in TorchRL's Hydra configurations: ``loss: mpo`` and ``trainer: mpo``.

Needs Hydra. Importing :mod:`mpo_torchrl.trainer` is enough to have both where Hydra is installed;
a configuration of TorchRL's SAC trainer becomes MPO's by changing these two names.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from hydra.core.config_store import ConfigStore
from hydra.utils import get_method
from torch import nn
from torchrl.collectors import BaseCollector
from torchrl.objectives import LossModule
from torchrl.trainers.algorithms import SACTrainer
from torchrl.trainers.algorithms.configs.objectives import LossConfig
from torchrl.trainers.algorithms.configs.trainers import SACTrainerConfig

from mpo_torchrl.loss import MPOLoss

SAC_ONLY = (
    *("value_network", "discrete", "action_space", "num_actions", "alpha_init", "min_alpha"),
    *("max_alpha", "fixed_alpha", "target_entropy", "target_entropy_weight", "delay_value"),
    *("priority_key", "skip_done_states"),
)
"""Fields of TorchRL's ``SACLossConfig`` that mean nothing to MPO; left out with a warning."""


@dataclass
class MPOLossConfig(LossConfig):
    """Hydra configuration for :class:`~mpo_torchrl.MPOLoss`.

    Every argument of ``MPOLoss`` is a field here, and ``gamma``, which makes the value estimator,
    as in TorchRL's configurations. SAC's own fields are accepted and left out, so that a
    configuration of SAC needs no other change than the name.

    It is a partial one: the loss must know the size of an action, which ``trainer: mpo`` asks the
    environment of its collector; call it with ``action_spec`` where there is no such trainer.
    """

    actor_network: Any = None
    qvalue_network: Any = None
    num_qvalue_nets: int | None = None
    num_action_samples: int = 20
    num_bootstrap_samples: int = 1
    e_step_critic: str = "online"
    epsilon: float = 0.1
    epsilon_mean: float = 0.1
    epsilon_stddev: float = 5e-3
    epsilon_penalty: float | None = 0.001
    epsilon_policy: float = 0.1
    per_dim_constraining: bool = True
    init_temperature: float = 1.0
    init_penalty_temperature: float = 1.0
    init_alpha_mean: float = 1.0
    init_alpha_stddev: float = 1.0
    init_alpha_policy: float = 1.0
    parametrization: str = "softplus"
    delay_actor: bool = True
    delay_qvalue: bool = True
    loss_function: str = "l2"
    reduction: str = "mean"
    action_spec: Any = None
    separate_losses: bool = False
    deactivate_vmap: bool = False
    scoring_dtype: str = "auto"
    use_prioritized_weights: Any = "auto"
    scalar_output_mode: str | None = None
    burn_in: int = 0
    temperature: Any = None
    e_step: Any = None
    m_step: Any = None
    gamma: float | None = None

    value_network: Any = None
    discrete: Any = None
    action_space: Any = None
    num_actions: Any = None
    alpha_init: Any = None
    min_alpha: Any = None
    max_alpha: Any = None
    fixed_alpha: Any = None
    target_entropy: Any = None
    target_entropy_weight: Any = None
    delay_value: Any = None
    priority_key: Any = None
    skip_done_states: Any = None

    _partial_: bool = True
    _target_: str = "mpo_torchrl.trainer.hydra_configs.make_mpo_loss"

    def __post_init__(self) -> None:
        """Post-initialization hook for MPO loss configurations."""
        super().__post_init__()


@dataclass
class MPOTrainerConfig(SACTrainerConfig):
    """Hydra configuration for MPO on TorchRL's own off-policy trainer.

    What is built is a :class:`~torchrl.trainers.algorithms.SACTrainer`, which trains an
    :class:`~mpo_torchrl.MPOLoss` as it is; every argument of it is a field here. The one thing that
    MPO adds is a learning rate for the dual variables, which must follow faster than the networks
    move; ``null`` leaves them at the optimizer's.
    """

    dual_lr: float | None = 1e-2

    _target_: str = "mpo_torchrl.trainer.hydra_configs.make_mpo_trainer"

    def __post_init__(self) -> None:
        """Post-initialization hook for MPO trainer configurations."""
        super().__post_init__()


def make_mpo_loss(
    *, gamma: float | None = None, scoring_dtype: str = "auto", **arguments: Any
) -> MPOLoss:
    """The loss of an :class:`MPOLossConfig`.

    Raises:
        ValueError: if the configuration is that of a discrete SAC, or ``scoring_dtype`` is none.
    """
    sac_only = {name: arguments.pop(name, None) for name in SAC_ONLY}
    if sac_only["discrete"]:
        raise ValueError("loss: mpo is for continuous actions, got discrete: true.")
    given = [name for name, value in sac_only.items() if value is not None]
    if given:
        warnings.warn(f"loss: mpo has no {', '.join(given)}; left out.", stacklevel=2)
    for name in ("actor_network", "qvalue_network"):
        arguments[name] = _made(arguments[name])
    if scoring_dtype != "auto":  # YAML has no dtypes; the loss refuses what is none
        arguments["scoring_dtype"] = getattr(torch, str(scoring_dtype), scoring_dtype)
    loss = MPOLoss(**arguments)
    if gamma is not None:
        loss.make_value_estimator(gamma=gamma)
    return loss


def make_mpo_trainer(
    *,
    collector: Any,
    loss_module: Any,
    optimizer: Any,
    dual_lr: float | None = 1e-2,
    **arguments: Any,
) -> SACTrainer:
    """The trainer of an :class:`MPOTrainerConfig`.

    A partial loss learns the action's spec from the collector's environment and takes the networks
    of the trainer, if there are some. ``dual_lr`` acts on a partial optimizer.
    """
    if not isinstance(collector, BaseCollector):
        fills_buffer = arguments["async_collection"] and arguments["replay_buffer"] is not None
        collector = collector(
            **({"replay_buffer": arguments["replay_buffer"]} if fills_buffer else {})
        )
    if not isinstance(loss_module, LossModule):
        networks = {
            "actor_network": _made(arguments["actor_network"]),
            "qvalue_network": _made(arguments["critic_network"]),
        }
        loss_module = loss_module(
            action_spec=collector.getattr_env("full_action_spec_unbatched").cpu(),
            **{name: network for name, network in networks.items() if network is not None},
        )
    if not isinstance(optimizer, torch.optim.Optimizer) and dual_lr is not None:
        optimizer = partial(_in_two_groups, optimizer, loss_module, dual_lr)
    make_sac_trainer = get_method(SACTrainerConfig._target_)
    return make_sac_trainer(
        collector=collector, loss_module=loss_module, optimizer=optimizer, **arguments
    )


def _in_two_groups(
    optimizer: Callable[..., torch.optim.Optimizer], loss: MPOLoss, dual_lr: float, params: object
) -> torch.optim.Optimizer:
    """The optimizer of all parameters (``params``), with a learning rate for the duals."""
    del params
    return optimizer(
        params=[
            {"params": loss.network_parameters()},
            {"params": loss.dual_parameters(), "lr": dual_lr},
        ]
    )


def _made(network: Any) -> Any:
    """A network, made now if the configuration was a partial one."""
    return network if network is None or isinstance(network, (nn.Module, list)) else network()


ConfigStore.instance().store(group="loss", name="mpo", node=MPOLossConfig)
ConfigStore.instance().store(group="trainer", name="mpo", node=MPOTrainerConfig)
