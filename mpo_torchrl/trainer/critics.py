"""The critic of a run: which part, and the networks it reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torchrl.data import TensorSpec

from mpo_torchrl.critic import (
    CategoricalCritic,
    Critic,
    MixtureCritic,
    MultiObjectiveCritic,
    QuantileCritic,
    ScalarCritic,
    TwoHotCritic,
)
from mpo_torchrl.functional import signed_hyperbolic
from mpo_torchrl.modules import make_critics, make_recurrent_critics
from mpo_torchrl.modules.recurrent import Cell
from mpo_torchrl.trainer.config import MPOConfig


def make_critic(observation_size: int, action_spec: TensorSpec, config: MPOConfig) -> Critic:
    """Part 1 of the loss: networks, and what their outputs mean."""
    make: Callable[..., list[Any]] = make_critics
    if config.recurrent != "none":
        cell = cast(Cell, config.recurrent)
        make = partial(make_recurrent_critics, state_size=config.state_size, cell=cell)

    def networks(num_outputs: int) -> list[Any]:
        return make(
            observation_size,
            action_spec,
            num_critics=config.num_critics,
            num_cells=config.critic_cells or [config.hidden] * 2,
            layer_norm=config.layer_norm,
            num_blocks=config.critic_blocks,
            num_outputs=num_outputs,
        )

    if config.bounds:
        objectives = len(config.bounds)
        return MultiObjectiveCritic(networks(objectives), objectives)
    if config.critic == "c51":
        support = torch.linspace(config.vmin, config.vmax, config.num_atoms)
        return CategoricalCritic(networks(config.num_atoms), support)
    if config.critic == "two_hot":
        low, high = signed_hyperbolic(torch.tensor([config.vmin, config.vmax])).tolist()
        support = torch.linspace(low, high, config.num_atoms)
        return TwoHotCritic(networks(config.num_atoms), support)
    if config.critic == "quantile":
        quantiles = config.num_quantiles
        return QuantileCritic(networks(quantiles), num_quantiles=quantiles)
    if config.critic == "mixture":
        components = config.num_components
        return MixtureCritic(
            networks(3 * components),
            num_components=components,
            init_scale=config.init_value_stddev,
        )
    return ScalarCritic(networks(1))
