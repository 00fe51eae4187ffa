"""Quantile regression: returns as equally likely numbers that are learnt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import NestedKey
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from mpo_torchrl.critic.distributional import DistributionalCritic
from mpo_torchrl.errors import require_count, require_number
from mpo_torchrl.functional import quantile_regression_loss


class QuantileCritic(DistributionalCritic):
    r"""An ensemble of critics that predict ``K`` quantiles of the return.

    .. math:: \ell = \sum_{c=1}^C \sum_i \operatorname{mean}_j
        \big|\tau_i - [\delta_{ij} < 0]\big|\, H(\delta_{ij}), \quad
        \delta_{ij} = y_j - \theta_{c,i}(s, a), \quad \tau_i = \tfrac{i + 1/2}{K}

    with the Huber function :math:`H` and :math:`y` the quantiles of the ``M`` bootstrap actions,
    discounted and rewarded. From `Dabney et al. (2017) <https://arxiv.org/abs/1710.10044>`_. No
    range of returns has to be known.

    Args:
        network (TensorDictModuleBase or sequence of them): reads the observation and the
            action, writes quantiles ``[*B, K]``, unit of return. A sequence is an ensemble.

    Keyword Args:
        num_quantiles (int): ``K``, at least 1; ``32`` by default.
        huber_threshold (float): where the loss turns from quadratic to linear, unit of return;
            0 for the absolute error. ``1.0`` by default.
        value_key (NestedKey): where the network writes; ``"state_action_value"`` by default.

    Raises:
        TypeError: if a network is not a TensorDict module, or an argument no number.
        ValueError: if networks are missing, the same or not built alike, ``num_quantiles`` is below
            1 or the threshold below 0.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from mpo_torchrl import MPOLoss
        >>> from mpo_torchrl.critic import QuantileCritic
        >>> from mpo_torchrl.modules import make_actor, make_critics
        >>> spec = Bounded(-2.0, 2.0, shape=(1,))
        >>> critic = QuantileCritic(make_critics(3, spec, num_outputs=32), num_quantiles=32)
        >>> loss = MPOLoss(make_actor(3, spec), critic)
    """

    levels: Tensor

    def __init__(
        self,
        network: TensorDictModuleBase | Sequence[TensorDictModuleBase],
        *,
        num_quantiles: int = 32,
        huber_threshold: float = 1.0,
        value_key: NestedKey = "state_action_value",
    ) -> None:
        require_count("num_quantiles", num_quantiles)
        require_number("huber_threshold", huber_threshold)
        if not huber_threshold >= 0:
            raise ValueError(f"huber_threshold must be at least 0, got {huber_threshold}.")
        super().__init__(network, num_quantiles, value_key=value_key)
        self.register_buffer("levels", (torch.arange(num_quantiles) + 0.5) / num_quantiles)
        self.huber_threshold = huber_threshold

    def _outputs_needed(self) -> str:
        return f"a critic of {self.num_outputs} quantiles ends in a layer with as many outputs"

    def mean(self, prediction: Tensor) -> Tensor:
        """``[..., K]`` quantiles to ``[...]``, unit of return."""
        return prediction.mean(-1)

    def encode(self, value_target: Tensor) -> Tensor:
        """A return is the one quantile of a target: ``[*B, 1]``."""
        return value_target

    def decode(self, target: Tensor) -> Tensor:
        """``[*B, K']`` quantiles to ``[*B]``, unit of return."""
        return target.mean(-1)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Quantile losses summed over the ensemble: ``[C, *B, K]``, ``[*B, K']`` to ``[*B]``."""
        return quantile_regression_loss(
            prediction, self.levels, target, huber_threshold=self.huber_threshold
        ).sum(0)

    def backup(self, following: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
        """``[*B, M, K]`` quantiles, ``[*B, 1]``, ``[*B, 1]`` to ``[*B, M K]``."""
        return reward + discount * following.flatten(-2)
