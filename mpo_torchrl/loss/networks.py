"""The user's networks on their way into a loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase, unravel_key
from tensordict.nn import ProbabilisticTensorDictModule, TensorDictParams
from torch import Tensor, nn
from torchrl.modules import Delta, TanhDelta


def next_key(key: NestedKey) -> NestedKey:
    """The key of an entry at the next step."""
    return unravel_key(("next", key))


def sampling_module(actor_network: nn.Module) -> ProbabilisticTensorDictModule:
    """The module that turns the actor's outputs into a distribution.

    Raises:
        TypeError: if the actor is deterministic.
    """
    modules = actor_network.modules() if isinstance(actor_network, nn.Module) else []
    found = [m for m in modules if isinstance(m, ProbabilisticTensorDictModule)]
    if not found or not hasattr(actor_network, "get_dist"):
        raise TypeError(
            "actor_network must be a stochastic policy with get_dist, such as torchrl's "
            f"ProbabilisticActor, got {type(actor_network).__name__}."
        )
    kind = found[-1].distribution_class
    if kind in (Delta, TanhDelta):
        raise TypeError(
            "actor_network must be a stochastic policy: its actions are weighed against each "
            f"other, and {kind.__name__} has one; take TanhNormal or IndependentNormal."
        )
    return found[-1]


def require_shapes(name: str, parameters: Iterable[Tensor]) -> None:
    """Raises ``ValueError`` if layers of a network size themselves and have not done so yet."""
    if any(nn.parameter.is_lazy(parameter) for parameter in parameters):
        raise ValueError(
            f"{name} has layers without a shape yet (lazy ones, of an MLP without in_features); "
            "call it once on a TensorDict such as env.fake_tensordict(), or give in_features."
        )


def inputs_of(actor_network: Any) -> list[NestedKey]:
    """What an actor reads of a state.

    A composite distribution reads the TensorDict of its parameters as a whole, which the actor's
    ``in_keys`` take for an input although its network wrote the entries.
    """
    written = [(key,) if isinstance(key, str) else key for key in actor_network.out_keys]

    def is_written(key: NestedKey) -> bool:
        path = (key,) if isinstance(key, str) else key
        return any(out[: len(path)] == path for out in written)

    return [key for key in actor_network.in_keys if not is_written(key)]


def count_critics(num_networks: int, num_qvalue_nets: int | None, *, is_list: bool) -> int:
    """How many critics there are: as asked, else those of a list, or two of one network.

    Raises:
        ValueError: if the number asked for is not that of the list, or below 1.
    """
    if num_qvalue_nets is None:
        return num_networks if is_list else 2
    whole = isinstance(num_qvalue_nets, int)
    if not whole or num_qvalue_nets < 1 or num_networks not in (1, num_qvalue_nets):
        raise ValueError(
            f"num_qvalue_nets={num_qvalue_nets} does not fit the {num_networks} critic(s) given; "
            "give one network, or a list of as many as num_qvalue_nets, which is at least 1."
        )
    return num_qvalue_nets


def shared_parameters(
    networks: Sequence[nn.Module], owner: TensorDictParams
) -> dict[NestedKey, NestedKey]:
    """Where in ``owner`` each parameter stands that all networks share with it."""
    owned = {id(parameter): key for key, parameter in owner.items(True, True)}
    first, *others = (TensorDict.from_module(network) for network in networks)
    return {
        key: owned[id(parameter)]
        for key, parameter in first.items(True, True)
        if id(parameter) in owned and all(o.get(key) is parameter for o in others)
    }


def keep_inner_batches(network: nn.Module, *stacked: TensorDictParams) -> None:
    """Gives parameters that a network keeps in a TensorDict the batch they have there.

    Networks of agents that share none of them keep a row for each agent and map over the rows;
    LossModule, stacking the networks of a list, takes the rows for mere numbers.
    """
    for name, module in network.named_modules():
        if isinstance(module, TensorDictParams):
            for params in stacked:
                inner = params.get(tuple(name.split(".")))
                inner.batch_size = torch.Size([*params.batch_size, *module.batch_size])


@torch.enable_grad()  # an expansion made without would cut the parameter off for good
def tie_parameters(
    params: TensorDictParams, owner: TensorDictParams, shared: Mapping[NestedKey, NestedKey]
) -> None:
    """Puts the owner's own parameters where they are shared.

    LossModule keeps detached copies there, which target updaters pass over, or for a list of
    networks an expansion, which a copy or a change of device cuts off.
    """
    with params.unlock_():
        for key, own in shared.items():
            parameter = owner.get(own)
            expanded = parameter.expand(*params.batch_size, *parameter.shape)
            params.set(key, expanded if params.batch_dims else parameter)


def untie_parameters(params: TensorDictParams, shared: Iterable[NestedKey]) -> None:
    """Puts copies where parameters are shared: an expansion cannot be written to."""
    with params.unlock_():
        for key in shared:
            params.set(key, params.get(key).detach().clone())


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
            # A network after its layers: it may have a say about how they begin.
            for module in reversed(list(blank.modules())):
                reset: Any = getattr(module, "reset_parameters", None)
                if reset is not None:
                    reset()
        member.update_(drawn)
