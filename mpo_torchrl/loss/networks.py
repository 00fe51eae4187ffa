"""The user's networks on their way into a loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase, unravel_key
from tensordict.nn import ProbabilisticTensorDictModule, TensorDictParams
from torch import nn


def next_key(key: NestedKey) -> NestedKey:
    """The key of an entry at the next step."""
    return unravel_key(("next", key))


def sampling_module(actor_network: nn.Module) -> ProbabilisticTensorDictModule:
    """The module that turns the actor's outputs into a distribution.

    Raises:
        TypeError: if the actor is deterministic.
    """
    found = [m for m in actor_network.modules() if isinstance(m, ProbabilisticTensorDictModule)]
    if not found or not hasattr(actor_network, "get_dist"):
        raise TypeError(
            "actor_network must be a stochastic policy with get_dist, such as torchrl's "
            f"ProbabilisticActor, got {type(actor_network).__name__}."
        )
    return found[-1]


def count_critics(num_networks: int, num_qvalue_nets: int | None) -> int:
    """How many critics there are: as asked, else two of one network or one of each in a list.

    Raises:
        ValueError: if the number asked for is not that of the list, or below 1.
    """
    if num_qvalue_nets is None:
        return num_networks if num_networks > 1 else 2
    if num_qvalue_nets < 1 or num_networks not in (1, num_qvalue_nets):
        raise ValueError(
            f"num_qvalue_nets={num_qvalue_nets} does not fit the {num_networks} critic(s) given; "
            "give one network, or a list of as many as num_qvalue_nets, which is at least 1."
        )
    return num_qvalue_nets


def borrow_parameters(
    params: TensorDictParams, networks: Sequence[nn.Module], owned: Iterable[nn.Parameter]
) -> list[NestedKey]:
    """Makes what all networks share with the owner of ``owned`` the owner's own parameters.

    LossModule keeps detached copies of them, or for a list of networks none: the first are
    passed over by target updaters, the second would be trained.

    Returns:
        list[NestedKey]: the keys of the shared parameters.
    """
    candidates, borrowed = set(owned), []
    members = [TensorDict.from_module(network) for network in networks]
    for key, parameter in members[0].items(True, True):
        if parameter in candidates and all(m.get(key) is parameter for m in members):
            if not params.get(key).requires_grad:
                expanded = parameter.expand(*params.shape, *parameter.shape)
                params.set(key, expanded if params.shape else parameter)
            borrowed.append(key)
    return borrowed


@torch.no_grad()
def reset_network(network: nn.Module, params: TensorDictBase) -> None:
    """Draws the parameters anew, each member of an ensemble on its own.

    TorchRL resets an ensemble's stacked weights in one go, whose first dimension then counts
    as fan-in: layers come out too small.
    """
    blank = deepcopy(network)
    members = params.data.unbind(0) if params.batch_dims else (params.data,)
    for member in members:
        drawn = member.clone()
        with drawn.to_module(blank, preserve_module_state=False):
            for module in blank.modules():
                reset: Any = getattr(module, "reset_parameters", None)
                if reset is not None:
                    reset()
        member.update_(drawn)
