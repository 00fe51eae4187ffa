"""Two-hot: the expected return, learnt as a classification of fixed atoms."""

from __future__ import annotations

from collections.abc import Sequence

from tensordict import NestedKey
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from mpo_torchrl.critic.base import Critic
from mpo_torchrl.critic.support import checked_support
from mpo_torchrl.functional import (
    categorical_cross_entropy,
    signed_hyperbolic,
    signed_parabolic,
    two_hot_decode,
    two_hot_encode,
)


class TwoHotCritic(Critic):
    r"""An ensemble of critics that classify the transformed expected return.

    .. math:: \ell = -\sum_{c=1}^C \sum_k
        \mathrm{twohot}_k\big(h(y)\big) \log \mathrm{softmax}_k\big(f_c(s, a)\big), \qquad
        Q_c = h^{-1}\Big(\sum_k z_k\, \mathrm{softmax}_k(f_c)\Big)

    with :math:`y` the scalar critic's target and :math:`h` the signed hyperbolic transform,
    under which returns of very different size are learnt alike. From `Schrittwieser et al.
    (2019) <https://arxiv.org/abs/1911.08265>`_, appendix F. Its target is a number: every value
    estimator of the scalar critic serves, TD(lambda) included.

    Args:
        network (TensorDictModuleBase or sequence of them): reads the observation and the
            action, writes logits ``[*B, K]``. A sequence is an ensemble.
        support (Tensor or sequence of float): ``[K]``, the atoms, increasing, transformed:
            between ``signed_hyperbolic`` of the smallest and of the largest return.

    Keyword Args:
        transformed (bool): apply the transform; else the support has the unit of return. ``True``
            by default.
        value_key (NestedKey): where the network writes; ``"state_action_value"`` by default.

    Raises:
        TypeError: if a network is not a TensorDict module.
        ValueError: if networks are missing, the same or not built alike, or the support has fewer
            than two atoms or does not increase.

    Examples:
        >>> import torch
        >>> from torchrl.data import Bounded
        >>> from mpo_torchrl import MPOLoss
        >>> from mpo_torchrl.critic import TwoHotCritic
        >>> from mpo_torchrl.functional import signed_hyperbolic
        >>> from mpo_torchrl.modules import make_actor, make_critics
        >>> spec = Bounded(-2.0, 2.0, shape=(1,))
        >>> low, high = signed_hyperbolic(torch.tensor([-1000.0, 1000.0])).tolist()
        >>> critic = TwoHotCritic(
        ...     make_critics(3, spec, num_outputs=51), torch.linspace(low, high, 51)
        ... )
        >>> loss = MPOLoss(make_actor(3, spec), critic)
    """

    support: Tensor

    def __init__(
        self,
        network: TensorDictModuleBase | Sequence[TensorDictModuleBase],
        support: Tensor | Sequence[float],
        *,
        transformed: bool = True,
        value_key: NestedKey = "state_action_value",
    ) -> None:
        support = checked_support(support)
        super().__init__(network, len(support), value_key=value_key)
        self.register_buffer("support", support)
        self.transformed = transformed

    def _outputs_needed(self) -> str:
        return f"a critic on {self.num_outputs} atoms ends in a layer with as many outputs"

    def mean(self, prediction: Tensor) -> Tensor:
        """``[..., K]`` logits to ``[...]``, unit of return."""
        return self.decode(prediction.softmax(-1))

    def encode(self, value_target: Tensor) -> Tensor:
        """A return ``[*B, 1]`` shared between the two nearest atoms: ``[*B, K]``."""
        value = value_target.squeeze(-1).to(self.support.dtype)
        return two_hot_encode(signed_hyperbolic(value) if self.transformed else value, self.support)

    def decode(self, target: Tensor) -> Tensor:
        """``[*B, K]`` probabilities to ``[*B]``, unit of return."""
        value = two_hot_decode(target, self.support)
        return signed_parabolic(value) if self.transformed else value

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Cross-entropies summed over the ensemble: ``[C, *B, K]``, ``[*B, K]`` to ``[*B]``."""
        return categorical_cross_entropy(prediction, target.detach()).sum(0)
