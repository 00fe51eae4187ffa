"""The price of moving the policy away from its reference."""

from __future__ import annotations

from torch import Tensor

from mpo_torchrl.dual.bound import BoundedMultiplier
from mpo_torchrl.functional import alpha_loss, kl_penalty


class KLMultiplier(BoundedMultiplier):
    r"""The multiplier α of one KL bound of the M-step, or one for each action dimension.

    .. math:: p = \sum_d \alpha_d\, \mathrm{KL}_d, \qquad
        \ell = \sum_d \alpha_d\, (\epsilon - \mathrm{KL}_d)

    The policy pays :math:`p`, the multiplier is trained on :math:`\ell`; in each the other factor
    is detached. From `Abdolmaleki et al. (2018) <https://arxiv.org/abs/1812.02256>`_.

    Args:
        epsilon (float): bound on the KL (each dimension's, if ``shape`` is ``(A,)``), nats.
        init (float): the multiplier at the start.

    Keyword Args:
        shape (sequence of int): ``(A,)`` for a multiplier per dimension, else ``()``.
        parametrization (str): ``"softplus"`` (default) or ``"exp"``.
        name (str): what the bound is called in error messages.

    Raises:
        ValueError: if ``epsilon`` or ``init`` is not positive and finite.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.dual import KLMultiplier
        >>> alpha = KLMultiplier(epsilon=0.1, init=2.0, shape=(1,))
        >>> alpha.loss(torch.tensor([[0.3]]))
        tensor([-0.4000], grad_fn=<SumBackward1>)
    """

    def penalty(self, kl: Tensor) -> Tensor:
        """What the policy pays: KLs ``[*B, A]`` or ``[*B]`` to ``[*B]``."""
        return kl_penalty(kl, self())

    def loss(self, kl: Tensor) -> Tensor:
        """What trains the multiplier: KLs ``[*B, A]`` or ``[*B]`` to ``[*B]``."""
        return alpha_loss(kl, self(), self.epsilon)
