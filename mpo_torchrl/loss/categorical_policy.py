"""A discrete actor as a function of its parameters: the logits of every action."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential
from torch import Tensor
from torch import distributions as d
from torchrl.modules import OneHotCategorical

from mpo_torchrl.distributions import categorical_logits
from mpo_torchrl.loss.networks import sampling_module
from mpo_torchrl.stateless import ParameterSets, StatelessNetwork

_PLAIN = (d.Categorical, d.OneHotCategorical, OneHotCategorical)


class CategoricalPolicy:
    """Evaluates a discrete actor under given parameters.

    Where one network is followed by a plain categorical distribution, neither the TensorDict nor
    the distribution is built: the logits are what the network returns.

    Args:
        actor_network (ProbabilisticTensorDictSequential): the actor; its distribution has
            ``logits`` ``[*B, A]``, ``-inf`` where an action is masked.

    Raises:
        ValueError: if the actor's distribution is not discrete.
    """

    def __init__(self, actor_network: ProbabilisticTensorDictSequential) -> None:
        self.actor_network = actor_network
        self.in_keys = list(actor_network.in_keys)
        sampling = sampling_module(actor_network)
        self.is_one_hot = _is_one_hot(sampling.distribution_class)
        self._network: StatelessNetwork | None = None
        modules = list(actor_network.module)
        plain = sampling.distribution_class in _PLAIN and list(sampling.dist_keys) == ["logits"]
        if plain and len(modules) == 2:
            network = modules[0]
            returns_logits = list(network.out_keys) == list(sampling.in_keys)
            if returns_logits and StatelessNetwork.supports(network):
                self._network = StatelessNetwork(network, "module.0.")

    def __call__(self, states: TensorDictBase, params: ParameterSets) -> Tensor:
        """The log-probability of every action in each state: ``[*B, A]``.

        Args:
            states (TensorDictBase): with the actor's ``in_keys``; left unchanged.
            params (ParameterSets): one set of parameters.
        """
        if self._network is not None and not self._network.is_hooked:
            (member,) = params.members()
            inputs = tuple(states.get(key) for key in self.in_keys)
            return torch.log_softmax(self._network(member, inputs), -1)
        states = states.copy()
        with params.params.to_module(self.actor_network, preserve_module_state=False):
            return torch.log_softmax(self.actor_network.get_dist(states).logits, -1)


def _is_one_hot(distribution: type) -> bool:
    """Whether actions are one-hot vectors ``[*B, A]``, or else whole numbers ``[*B]``.

    Raises:
        ValueError: if the distribution is not one over choices.
    """
    probe = _probe(distribution)
    if probe is None or categorical_logits(probe) is None:
        raise ValueError(
            "DiscreteMPOLoss needs a policy over discrete actions, one with logits such as "
            f"OneHotCategorical, got {distribution.__name__}; use MPOLoss for continuous actions."
        )
    return bool(probe.mode.ndim)  # TorchRL's one-hot distributions have no event_shape


def _probe(distribution: type) -> d.Distribution | None:
    """The distribution over two equal actions."""
    logits, mask = torch.zeros(2), torch.ones(2, dtype=torch.bool)
    for given in ({"logits": logits}, {"logits": logits, "mask": mask}, {"scores": logits}):
        try:
            return distribution(**given)
        except (TypeError, ValueError):
            continue
    return None


def index_of(action: Tensor, is_one_hot: bool, batch: torch.Size, number: int) -> Tensor:
    """Which action was taken, ``[*B, 1]``.

    Args:
        action (Tensor): ``[*B, A]`` if one-hot, else ``[*B]`` or ``[*B, 1]``.
        is_one_hot (bool): how the policy writes its actions.
        batch (torch.Size): ``*B``.
        number (int): how many actions there are, ``A``.

    Raises:
        ValueError: if the shape is another.
    """
    if is_one_hot and action.shape == (*batch, number):
        return action.long().argmax(-1, keepdim=True)
    if not is_one_hot and action.shape in (batch, (*batch, 1)):
        return action.long().reshape(*batch, 1)
    expected = f"[*B, {number}], one-hot" if is_one_hot else "[*B] or [*B, 1], whole numbers"
    raise ValueError(
        f"the batch's actions must be {expected}, as the policy's are, with *B = {list(batch)}, "
        f"got shape {list(action.shape)}."
    )
