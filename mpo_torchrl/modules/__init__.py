"""Actor and critic networks for MPO, built in one line."""

from __future__ import annotations

from mpo_torchrl.modules.actor import GaussianHead, make_actor
from mpo_torchrl.modules.critic import ActionValueMLP, JoinAction, make_critics, make_value_network
from mpo_torchrl.modules.discrete import make_discrete_actor, make_discrete_critics
from mpo_torchrl.modules.mlp import ResidualBlock, make_mlp
from mpo_torchrl.modules.recurrent import (
    make_recurrent_actor,
    make_recurrent_critics,
    make_torso,
)

__all__ = [
    "ActionValueMLP",
    "GaussianHead",
    "JoinAction",
    "ResidualBlock",
    "make_actor",
    "make_critics",
    "make_discrete_actor",
    "make_discrete_critics",
    "make_mlp",
    "make_recurrent_actor",
    "make_recurrent_critics",
    "make_torso",
    "make_value_network",
]
