"""The temperature of the E-step, learnt by gradient descent on its dual."""

from __future__ import annotations

import torch
from torch import Tensor

from mpo_torchrl.dual.bound import BoundedMultiplier
from mpo_torchrl.dual.multiplier import Parametrization
from mpo_torchrl.functional import categorical_temperature_loss, temperature_loss


class Temperature(BoundedMultiplier):
    r"""The temperature η of the E-step, trained so that the weights spend ``epsilon``.

    .. math:: g(\eta) = \eta\,\epsilon + \eta \log \tfrac1N \sum_n e^{Q_n / \eta}

    Called with the values it will weigh; this one ignores them and returns its parameter,
    :class:`~mpo_torchrl.dual.ExactTemperature` solves for the temperature from them. See
    :func:`~mpo_torchrl.functional.temperature_loss` for the formula and
    `Abdolmaleki et al. (2018) <https://arxiv.org/abs/1806.06920>`_ for its derivation.

    Args:
        epsilon (float): bound on the KL of the E-step averaged over states, nats.
        init (float): the temperature at the start, unit of return.

    Keyword Args:
        parametrization (str): ``"softplus"`` (default) or ``"exp"``.
        name (str): what the bound is called in error messages.

    Raises:
        ValueError: if ``epsilon`` or ``init`` is not positive and finite.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.dual import Temperature
        >>> temperature = Temperature(epsilon=0.1, init=1.0)
        >>> q_value = torch.tensor([[1.0, 3.0]])
        >>> temperature(q_value)
        tensor(1., grad_fn=<AddBackward0>)
        >>> temperature.loss(q_value)
        tensor([2.5338], grad_fn=<AddBackward0>)
    """

    def __init__(
        self,
        epsilon: float,
        init: float,
        *,
        parametrization: Parametrization = "softplus",
        name: str = "epsilon",
    ) -> None:
        super().__init__(epsilon, init, parametrization=parametrization, name=name)

    def forward(self, q_value: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """The temperature, ``[]``."""
        return super().forward()

    def loss(self, q_value: Tensor) -> Tensor:
        """The dual of the E-step per state: ``[*B, N]`` values to ``[*B]``."""
        return temperature_loss(q_value, self(q_value), self.epsilon)


class CategoricalTemperature(Temperature):
    r"""The temperature of an E-step over every action of a discrete space.

    .. math:: g(\eta) = \eta\,\epsilon + \eta \log \sum_a \pi(a)\, e^{Q_a / \eta}

    See :func:`~mpo_torchrl.functional.categorical_temperature_loss`. From `Abdolmaleki et al.
    (2018) <https://arxiv.org/abs/1806.06920>`_.

    Args:
        epsilon (float): bound on the KL of the E-step averaged over states, nats.
        init (float): the temperature at the start, unit of return.

    Keyword Args:
        parametrization (str): ``"softplus"`` (default) or ``"exp"``.
        name (str): what the bound is called in error messages.

    Raises:
        ValueError: if ``epsilon`` or ``init`` is not positive and finite.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.dual import CategoricalTemperature
        >>> temperature = CategoricalTemperature(epsilon=0.1, init=1.0)
        >>> temperature.loss(torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2))
        tensor([2.5338], grad_fn=<AddBackward0>)
    """

    def loss(self, q_value: Tensor, logits: Tensor | None = None) -> Tensor:
        """The dual per state: values ``[*B, A]`` and the reference's logits, to ``[*B]``."""
        logits = torch.zeros_like(q_value) if logits is None else logits
        return categorical_temperature_loss(q_value, logits, self(q_value), self.epsilon)
