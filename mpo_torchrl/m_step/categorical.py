"""The M-step of a policy over discrete actions."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from mpo_torchrl.dual import KLMultiplier
from mpo_torchrl.functional import categorical_kl, categorical_nll
from mpo_torchrl.m_step.fit import Fit


class CategoricalMStep(nn.Module):
    r"""Fits a categorical policy to the improved one under one KL bound.

    .. math:: -\sum_a w_a \log \pi_\theta(a \mid s), \qquad
        \mathrm{KL}(\pi_0 \Vert \pi_\theta) \le \epsilon

    From `Abdolmaleki et al. (2018) <https://arxiv.org/abs/1806.06920>`_, the parametric M-step.

    Args:
        alpha_policy (KLMultiplier): dual of the bound, of shape ``()``.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from mpo_torchrl.dual import KLMultiplier
        >>> from mpo_torchrl.m_step import CategoricalMStep
        >>> improved = TensorDict(logits=torch.zeros(1, 2), weight=torch.tensor([[0.2, 0.8]]))
        >>> fit = CategoricalMStep(KLMultiplier(0.01, 1.0))(improved, torch.zeros(1, 2))
        >>> fit.nll, fit.kl["policy"]
        (tensor([0.6931]), tensor([0.]))
    """

    readings = ("entropy",)

    def __init__(self, alpha_policy: KLMultiplier) -> None:
        super().__init__()
        self.multipliers = nn.ModuleDict({"policy": alpha_policy})

    def forward(self, improved: TensorDictBase, logits: Tensor) -> Fit:
        """Compares the online policy with the result of the E-step.

        Args:
            improved (TensorDictBase): ``"weight"`` and the reference's ``"logits"``, ``[*B, A]``.
            logits (Tensor): ``[*B, A]`` of the online policy; ``-inf`` where masked.

        Returns:
            Fit: with the constraint ``"policy"``.
        """
        with torch.no_grad():
            log_prob = torch.log_softmax(logits, -1)
            entropy = categorical_nll(log_prob.exp(), log_prob)
        return Fit(
            categorical_nll(improved.get("weight"), logits),
            {"policy": categorical_kl(improved.get("logits").detach(), logits)},
            {"entropy": entropy},
        )
