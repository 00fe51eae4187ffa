"""The temperature of the E-step, solved for in every batch."""

from __future__ import annotations

import torch
from torch import Tensor

from mpo_torchrl.dual.bound import Bound
from mpo_torchrl.functional import optimal_temperature


class ExactTemperature(Bound):
    r"""The temperature η that makes the weights of this very batch spend ``epsilon``.

    .. math:: \operatorname{mean}_{*B} \mathrm{KL}(w_{\eta} \,\Vert\, \mathrm{uniform}) = \epsilon

    Takes the place of :class:`~mpo_torchrl.dual.Temperature`: nothing is learned, so there is no
    initial value, no learning rate, and no lag when values grow. See
    :func:`~mpo_torchrl.functional.optimal_temperature`; the dual is that of `Abdolmaleki et al.
    (2018) <https://arxiv.org/abs/1806.06920>`_.

    Args:
        epsilon (float): bound on the KL of the E-step averaged over states, nats.

    Keyword Args:
        name (str): what the bound is called in error messages.

    Raises:
        ValueError: if ``epsilon`` is not positive.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.dual import ExactTemperature
        >>> ExactTemperature(epsilon=0.1)(torch.tensor([[1.0, 3.0]]))
        tensor(2.1199)
    """

    def __init__(self, epsilon: float, *, name: str = "epsilon") -> None:
        super().__init__()
        self._register_bound(epsilon, name)

    def forward(self, q_value: Tensor, mask: Tensor | None = None) -> Tensor:
        """The temperature ``[]`` for values ``[*B, N]`` of the states in the mask ``[*B]``."""
        return optimal_temperature(q_value, self.epsilon, mask)

    def loss(self, q_value: Tensor) -> Tensor:
        """Zero for each state, ``[*B]``: at its minimum the dual has nothing to learn."""
        return torch.zeros_like(q_value[..., 0])
