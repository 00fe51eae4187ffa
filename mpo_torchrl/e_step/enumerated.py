"""The E-step over every action of a discrete space."""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from mpo_torchrl.dual import (
    CategoricalTemperature,
    ExactTemperature,
    FixedTemperature,
    KLMultiplier,
    ObjectiveTemperatures,
    Temperature,
)
from mpo_torchrl.errors import require_entry, require_part
from mpo_torchrl.functional import categorical_improvement


class EnumeratedEStep(nn.Module):
    r"""Reweighs the reference policy by the value of each action; nothing is sampled.

    .. math:: w_a \propto \pi_0(a \mid s)\, e^{Q(s, a) / \eta}

    See :func:`~mpo_torchrl.functional.categorical_improvement`. From `Abdolmaleki et al. (2018)
    <https://arxiv.org/abs/1806.06920>`_, where nothing has to be sampled. What the TensorDict
    already holds is kept, as with :class:`~mpo_torchrl.e_step.SampledEStep`.

    Args:
        temperature (CategoricalTemperature): the dual that sets how greedy the weights are.

    Raises:
        TypeError: if ``temperature`` is a dual of sampled actions.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.dual import CategoricalTemperature
        >>> from mpo_torchrl.e_step import EnumeratedEStep
        >>> e_step = EnumeratedEStep(CategoricalTemperature(0.1, 2.0))
        >>> e_step(torch.zeros(1, 2), torch.tensor([[1.0, 3.0]]))["weight"]
        tensor([[0.2689, 0.7311]])
    """

    def __init__(self, temperature: CategoricalTemperature) -> None:
        super().__init__()
        sampled = (Temperature, ExactTemperature, FixedTemperature, ObjectiveTemperatures)
        others = (*sampled, KLMultiplier)
        require_part("temperature", temperature, (CategoricalTemperature,), ("loss",), others)
        self.temperature = temperature

    @torch.no_grad()
    def forward(
        self, logits: Tensor, action_value: Tensor, given: TensorDictBase | None = None
    ) -> TensorDictBase:
        """Completes the E-step.

        Args:
            logits (Tensor): ``[*B, A]`` of the reference policy; ``-inf`` where masked.
            action_value (Tensor): ``[*B, A]``, the value of each action, unit of return.
            given (TensorDictBase, optional): entries to keep, out of those below.

        Returns:
            TensorDictBase: ``"logits"`` of the reference, ``"state_action_value"``, and
            ``"weight"``, the improved policy, ``[*B, A]`` each; ``"temperature"`` ``[*B]``, the
            same in all states.
        """
        improved = given.copy() if given is not None else TensorDict()
        for key in ("logits", "state_action_value", "weight"):
            require_entry(improved, key, "[*B, A]", logits.shape)
        improved.setdefault("logits", logits)
        improved.setdefault("state_action_value", action_value)
        logits, action_value = improved.get("logits"), improved.get("state_action_value")
        if improved.get("temperature", None) is None:
            temperature = self.temperature(action_value)
            improved.set("temperature", temperature.expand(logits.shape[:-1]))
        if improved.get("weight", None) is None:
            temperature = improved.get("temperature").unsqueeze(-1)
            weight = categorical_improvement(action_value, logits, temperature).exp()
            improved.set("weight", weight)
        return improved
