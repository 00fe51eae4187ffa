"""The E-step of several objectives at once."""

from __future__ import annotations

from tensordict import TensorDictBase
from torch import Tensor

from mpo_torchrl.dual import ObjectiveTemperatures
from mpo_torchrl.e_step.sampled import SampledEStep
from mpo_torchrl.functional import (
    effective_sample_size,
    nonparametric_kl,
    nonparametric_weights,
)


class MultiObjectiveEStep(SampledEStep):
    r"""Weighs ``N`` sampled actions under each objective and adds the weights up.

    .. math:: w_n = \sum_{k=1}^K \mathrm{softmax}_N\big(Q_k(s, a_n) / \eta_k\big)

    An objective has a say by the bound of its temperature alone: once that has followed the
    values, the unit of the reward does not matter. From `Abdolmaleki et al. (2020) <https://arxiv.org/abs/2005.07513>`_.

    Args:
        temperature (ObjectiveTemperatures): a temperature for each objective.

    Keyword Args:
        num_action_samples (int): ``N``, at least 1; ``20`` by default.
        penalty (ActionPenalty, optional): the price of leaving the action space, one more
            objective.

    Raises:
        ValueError: if ``num_action_samples`` is below 1.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.dual import ObjectiveTemperatures
        >>> from mpo_torchrl.e_step import MultiObjectiveEStep
        >>> e_step = MultiObjectiveEStep(ObjectiveTemperatures({"speed": 0.1, "energy": 0.01}))
        >>> policy = torch.distributions.Normal(torch.zeros(3, 2), torch.ones(3, 2))
        >>> improved = e_step(torch.distributions.Independent(policy, 1), score=lambda a: a)
        >>> improved["weight"].shape, bool((improved["weight"].sum(-1) - 2).abs().max() < 1e-5)
        (torch.Size([3, 20]), True)
    """

    temperature: ObjectiveTemperatures

    _value_letters = "[*B, N, K]"

    def _value_dims(self) -> tuple[int, ...]:
        return (len(self.temperature),)

    def _weigh_values(self, improved: TensorDictBase) -> Tensor:
        return self.weigh_each(improved).sum(-2)

    def _value_terms(self, improved: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        weight = self.weigh_each(improved)  # [*B, K, N]
        kl = nonparametric_kl(weight)  # [*B, K]
        temperatures = improved.get("temperature").unbind(-1)
        readings = {"effective_sample_size": effective_sample_size(weight.sum(-2))}
        for i, (name, _) in enumerate(self.temperature.items()):
            readings[f"temperature_{name}"] = temperatures[i].amax()
            readings[f"kl_e_step_{name}"] = kl[..., i]
        return self.temperature.loss(improved.get("state_action_value")), readings

    def weigh_each(self, improved: TensorDictBase) -> Tensor:
        """The weights of each objective: ``[*B, K, N]``."""
        values = improved.get("state_action_value").movedim(-1, -2)
        return nonparametric_weights(values, improved.get("temperature").unsqueeze(-1))
