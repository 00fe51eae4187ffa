"""The price of leaving the action space, for policies that are not squashed."""

from __future__ import annotations

import torch
from torch import Tensor

from mpo_torchrl.dual.multiplier import Parametrization
from mpo_torchrl.dual.temperature import Temperature
from mpo_torchrl.functional import out_of_bounds_cost


class ActionPenalty(Temperature):
    r"""The out-of-bounds cost as a second objective with a temperature of its own.

    .. math:: \ell = \eta_c\, \epsilon_c + \eta_c \log \tfrac1N \sum_n e^{c(a_n) / \eta_c}, \qquad
        c(a) = -\lVert a - \mathrm{clip}(a, \mathrm{low}, \mathrm{high}) \rVert_2

    Its weights are added to those of the critic's values, as in `Abdolmaleki et al. (2020)
    <https://arxiv.org/abs/2005.07513>`_ with two objectives.

    Args:
        epsilon (float): bound on the KL that the penalty may spend, nats.
        init (float): its temperature at the start, unit of action.
        low (Tensor): ``[A]``, lower bounds of the action space, finite.
        high (Tensor): ``[A]``, upper bounds of the action space, finite.

    Keyword Args:
        parametrization (str): ``"softplus"`` (default) or ``"exp"``.

    Raises:
        ValueError: if a bound is not finite, or ``epsilon`` or ``init`` not positive and finite.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.dual import ActionPenalty
        >>> penalty = ActionPenalty(0.001, 1.0, low=-torch.ones(1), high=torch.ones(1))
        >>> penalty.cost(torch.tensor([[[3.0], [0.0]]]))
        tensor([[-2., -0.]])
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        epsilon: float,
        init: float,
        low: Tensor,
        high: Tensor,
        *,
        parametrization: Parametrization = "softplus",
    ) -> None:
        super().__init__(epsilon, init, parametrization=parametrization, name="epsilon_penalty")
        low, high = torch.as_tensor(low), torch.as_tensor(high)
        if not bool(low.isfinite().all() and high.isfinite().all()):
            raise ValueError(
                "an action penalty needs a bounded action space, got low "
                f"{low.tolist()} and high {high.tolist()}; pass epsilon_penalty=None to train "
                "without one."
            )
        self.register_buffer("low", low.detach().clone())
        self.register_buffer("high", high.detach().clone())

    def cost(self, action: Tensor) -> Tensor:
        """How far each action is out of bounds: ``[*B, N, A]`` to ``[*B, N]``, at most 0.

        Raises:
            ValueError: if the action is not of the bounds' size.
        """
        if self.low.ndim and action.shape[-1:] != self.low.shape:
            raise ValueError(
                f"the action penalty has the bounds of {self.low.shape[0]} action dimensions and "
                f"the policy {action.shape[-1]}; pass the action_spec of this policy."
            )
        return out_of_bounds_cost(action, self.low, self.high)
