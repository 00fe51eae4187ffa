"""A temperature of the E-step that stays as it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mpo_torchrl.errors import require_number


class FixedTemperature(nn.Module):
    r"""A temperature that is given: nothing is learned and nothing solved for.

    .. math:: w_n = \mathrm{softmax}_N(Q_n / \eta), \qquad \eta = \mathrm{const}

    Takes the place of :class:`~mpo_torchrl.dual.Temperature`. What the E-step spends is then
    unbounded and follows the scale of the values, as in `Wang et al. (2020)
    <https://arxiv.org/abs/2006.15134>`_, who call it :math:`\beta`. An infinite temperature weighs
    all actions alike.

    Args:
        value (float): the temperature, positive, unit of return.

    Raises:
        TypeError: if ``value`` is no number.
        ValueError: if ``value`` is not positive.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.dual import FixedTemperature
        >>> FixedTemperature(2.0)(torch.tensor([[1.0, 3.0]]))
        tensor(2.)
    """

    value: Tensor

    def __init__(self, value: float) -> None:
        super().__init__()
        require_number("a temperature", value)
        if not value > 0:
            raise ValueError(f"a temperature must be positive, got {value}.")
        # A constant: no state to save, but it moves with the loss.
        self.register_buffer("value", torch.tensor(float(value)), persistent=False)

    def forward(self, q_value: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """The temperature, ``[]``."""
        return self.value

    def loss(self, q_value: Tensor) -> Tensor:
        """Zero for each state, ``[*B]``: there is nothing to learn."""
        return torch.zeros_like(q_value[..., 0])

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"{float(self.value):g}"
