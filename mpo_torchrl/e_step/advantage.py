"""The E-step on the actions of an on-policy batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mpo_torchrl.dual import (
    ExactTemperature,
    FixedTemperature,
    ObjectiveTemperatures,
    Temperature,
)
from mpo_torchrl.errors import require_number, require_part
from mpo_torchrl.functional import vmpo_kl, vmpo_temperature_loss, vmpo_weights


class AdvantageEStep(nn.Module):
    r"""Weighs the steps of a batch by their advantages: the best of them, none of the others.

    .. math:: w_i = \frac{e^{A_i / \eta}}{\sum_{j \in \mathrm{top}\,k} e^{A_j / \eta}}
        \quad \text{for } i \in \mathrm{top}\,k, \text{ else } 0

    The weights are over the whole batch, since it holds one action a state. See
    :func:`~mpo_torchrl.functional.vmpo_weights` for restarting and importance weights.
    From `Song et al. (2019) <https://arxiv.org/abs/1909.12238>`_.

    Args:
        temperature (Temperature): the dual that sets how greedy the weights are.

    Keyword Args:
        top_k_fraction (float): share of the batch that counts; ``0.5`` by default.

    Raises:
        TypeError: if ``temperature`` is not learned or ``top_k_fraction`` no number.
        ValueError: if ``top_k_fraction`` is not in (0, 1].

    Examples:
        >>> import torch
        >>> from mpo_torchrl.dual import Temperature
        >>> from mpo_torchrl.e_step import AdvantageEStep
        >>> e_step = AdvantageEStep(Temperature(0.1, 1.0))
        >>> e_step(torch.tensor([0.0, 1.0, 2.0, -1.0]))
        tensor([0.0000, 0.2689, 0.7311, 0.0000])
    """

    def __init__(self, temperature: Temperature, *, top_k_fraction: float = 0.5) -> None:
        super().__init__()
        require_number("top_k_fraction", top_k_fraction)
        if not 0 < top_k_fraction <= 1:
            raise ValueError(f"top_k_fraction must be in (0, 1], got {top_k_fraction}.")
        others = (ExactTemperature, FixedTemperature, ObjectiveTemperatures)
        require_part("temperature", temperature, (Temperature,), ("epsilon",), others)
        self.temperature = temperature
        self.top_k_fraction = top_k_fraction

    @torch.no_grad()
    def forward(
        self,
        advantage: Tensor,
        restarting_weight: Tensor | None = None,
        importance_weight: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Weights ``[*B]`` of the steps; they sum to 1 over the batch.

        Args:
            advantage (Tensor): ``[*B]``, unit of return.
            restarting_weight (Tensor, optional): ``[*B]``, 0 where the action had no effect.
            importance_weight (Tensor, optional): ``[*B]``, of actions from an older policy.
            mask (Tensor, optional): ``[*B]``, the steps that are there at all.
        """
        return vmpo_weights(
            advantage,
            self.temperature(),
            self.top_k_fraction,
            restarting_weight,
            importance_weight,
            mask,
        )

    def temperature_loss(
        self,
        advantage: Tensor,
        restarting_weight: Tensor | None = None,
        importance_weight: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The dual of the E-step, one number ``[]`` for the batch; arguments of :meth:`forward`."""
        return vmpo_temperature_loss(
            advantage,
            self.temperature(),
            self.temperature.epsilon,
            self.top_k_fraction,
            restarting_weight,
            importance_weight,
            mask,
        )

    @torch.no_grad()
    def kl(
        self,
        advantage: Tensor,
        restarting_weight: Tensor | None = None,
        importance_weight: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The KL ``[]`` that the weights spend, nats; arguments of :meth:`forward`."""
        return vmpo_kl(
            advantage,
            self.temperature(),
            self.top_k_fraction,
            restarting_weight,
            importance_weight,
            mask,
        )
