"""A temperature for each of several objectives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from mpo_torchrl.dual.multiplier import Parametrization
from mpo_torchrl.dual.temperature import Temperature


class ObjectiveTemperatures(nn.ModuleDict):
    r"""The temperatures :math:`\eta_k` of ``K`` objectives, each with a bound of its own.

    .. math:: \ell = \tfrac1K \sum_k \Big[\eta_k \epsilon_k
        + \eta_k \log \tfrac1N \sum_n e^{Q_{k,n} / \eta_k}\Big]

    The bounds are the preference: an objective may bend the policy as far as its bound goes. With
    a bound of zero it would have no say. From `Abdolmaleki et al. (2020)
    <https://arxiv.org/abs/2005.07513>`_; the mean over objectives is that of Acme.

    Args:
        epsilon (mapping): the bound of each objective by its name, in the order of the rewards,
            nats.
        init (float): the temperatures at the start, unit of return.

    Keyword Args:
        parametrization (str): ``"softplus"`` (default) or ``"exp"``.

    Raises:
        TypeError: if a name is no text.
        ValueError: if there is no objective, or a bound is not positive.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.dual import ObjectiveTemperatures
        >>> temperatures = ObjectiveTemperatures({"speed": 0.1, "energy": 0.01})
        >>> temperatures(torch.zeros(5, 20, 2)).tolist()
        [1.0, 1.0]
    """

    def __init__(
        self,
        epsilon: Mapping[str, float],
        init: float = 1.0,
        *,
        parametrization: Parametrization = "softplus",
    ) -> None:
        if not epsilon:
            raise ValueError("epsilon must name at least one objective, got none.")
        unnamed = [name for name in epsilon if not isinstance(name, str)]
        if unnamed:
            raise TypeError(
                f"an objective is called by a text such as 'speed', got {unnamed[0]!r}."
            )
        taken = [name for name in epsilon if "." in name or hasattr(nn.ModuleDict(), name)]
        if taken:
            raise ValueError(
                f"an objective cannot be called {taken[0]!r}, which holds a dot or is an attribute "
                "of torch's ModuleDict; choose another name."
            )
        super().__init__(
            {
                name: Temperature(
                    bound, init, parametrization=parametrization, name=f"epsilon of {name!r}"
                )
                for name, bound in epsilon.items()
            }
        )

    def forward(self, q_value: Tensor, mask: Tensor | None = None) -> Tensor:
        """The temperatures ``[K]`` for values ``[*B, N, K]``."""
        return torch.stack([temperature() for temperature in self.values()])

    def loss(self, q_value: Tensor) -> Tensor:
        """The mean of the duals per state: ``[*B, N, K]`` values to ``[*B]``."""
        temperatures = cast(Iterable[Temperature], self.values())
        each = zip(temperatures, q_value.unbind(-1), strict=True)
        return torch.stack([temperature.loss(values) for temperature, values in each]).mean(0)
