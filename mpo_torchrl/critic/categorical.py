"""C51: returns as probabilities of fixed atoms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import NestedKey
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from mpo_torchrl.critic.distributional import DistributionalCritic
from mpo_torchrl.critic.support import checked_support
from mpo_torchrl.functional import (
    categorical_cross_entropy,
    categorical_projection,
    two_hot_decode,
)


class CategoricalCritic(DistributionalCritic):
    r"""An ensemble of critics that predict the probability of each of ``K`` returns, as in C51.

    .. math:: \ell = -\sum_{c=1}^C \sum_k p_k \log \mathrm{softmax}_k\big(f_c(s, a)\big), \qquad
        p = \Phi\Big(\tfrac1M \sum_m r + \gamma Z(s', a'_m)\Big)

    with :math:`\Phi` the projection onto the support. From `Bellemare et al. (2017)
    <https://arxiv.org/abs/1707.06887>`_; with MPO it is the critic of `Hoffman et al. (2020)
    <https://arxiv.org/abs/2006.00979>`_, there with 51 atoms from -150 to 150 on the control
    suite. Returns outside the support are moved to its ends.

    Args:
        network (TensorDictModuleBase or sequence of them): reads the observation and the
            action, writes logits ``[*B, K]``. A sequence is an ensemble.
        support (Tensor or sequence of float): ``[K]``, the atoms, increasing, unit of return.

    Keyword Args:
        value_key (NestedKey): where the network writes; ``"state_action_value"`` by default.

    Raises:
        TypeError: if a network is not a TensorDict module.
        ValueError: if networks are missing, the same or not built alike, or the support has fewer
            than two atoms or does not increase.

    Examples:
        >>> import torch
        >>> from torchrl.data import Bounded
        >>> from mpo_torchrl import MPOLoss
        >>> from mpo_torchrl.critic import CategoricalCritic
        >>> from mpo_torchrl.modules import make_actor, make_critics
        >>> spec = Bounded(-2.0, 2.0, shape=(1,))
        >>> networks = make_critics(3, spec, num_outputs=51)
        >>> critic = CategoricalCritic(networks, torch.linspace(-150, 150, 51))
        >>> loss = MPOLoss(make_actor(3, spec), critic)
    """

    support: Tensor

    def __init__(
        self,
        network: TensorDictModuleBase | Sequence[TensorDictModuleBase],
        support: Tensor | Sequence[float],
        *,
        value_key: NestedKey = "state_action_value",
    ) -> None:
        support = checked_support(support)
        super().__init__(network, len(support), value_key=value_key)
        self.register_buffer("support", support)

    def _outputs_needed(self) -> str:
        return f"a critic on {self.num_outputs} atoms ends in a layer with as many outputs"

    def mean(self, prediction: Tensor) -> Tensor:
        """``[..., K]`` logits to ``[...]``, unit of return."""
        return two_hot_decode(prediction.softmax(-1), self.support)

    def encode(self, value_target: Tensor) -> Tensor:
        """A return ``[*B, 1]`` shared between the two nearest atoms: ``[*B, K]``."""
        value = value_target.to(self.support.dtype)
        return categorical_projection(torch.ones_like(value), value, self.support)

    def decode(self, target: Tensor) -> Tensor:
        """``[*B, K]`` probabilities to ``[*B]``, unit of return."""
        return two_hot_decode(target, self.support)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Cross-entropies summed over the ensemble: ``[C, *B, K]``, ``[*B, K]`` to ``[*B]``."""
        return categorical_cross_entropy(prediction, target.detach()).sum(0)

    def backup(self, following: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
        """``[*B, M, K]`` logits, ``[*B, 1]``, ``[*B, 1]`` to ``[*B, K]`` probabilities."""
        probs = following.softmax(-1).mean(-2)  # the atoms are those of every action
        return categorical_projection(probs, reward + discount * self.support, self.support)
