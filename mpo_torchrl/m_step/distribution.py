"""The M-step of any other policy, bounded as a whole."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch import distributions as d

from mpo_torchrl.distributions import log_prob, per_state
from mpo_torchrl.dual import KLMultiplier
from mpo_torchrl.m_step.fit import Fit, entropy_of, estimated_kl


class DistributionMStep(nn.Module):
    r"""Fits a policy of any distribution to the weighted actions under one KL bound.

    .. math:: -\sum_{n=1}^N w_n \log \pi_\theta(a_n \mid s), \qquad
        \mathrm{KL}(\pi_0 \Vert \pi_\theta) \le \epsilon

    The KL is :func:`torch.distributions.kl_divergence` where the distribution has one, else
    its Monte Carlo estimate :math:`\tfrac1N \sum_n r_n - 1 - \log r_n`, with
    :math:`r_n = \pi_\theta(a_n) / \pi_0(a_n)`, on the actions of the E-step, which the reference
    policy drew: no term of it is negative. From `Abdolmaleki et al. (2018)
    <https://arxiv.org/abs/1806.06920>`_, the parametric M-step.

    Args:
        alpha_policy (KLMultiplier): dual of the bound on the whole policy, of shape ``()``.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from mpo_torchrl.dual import KLMultiplier
        >>> from mpo_torchrl.m_step import DistributionMStep
        >>> ones = torch.ones(5, 2)
        >>> policy = torch.distributions.Independent(torch.distributions.Beta(ones, ones), 1)
        >>> improved = TensorDict(action=torch.rand(5, 4, 2), weight=torch.full((5, 4), 0.25))
        >>> fit = DistributionMStep(KLMultiplier(0.01, 1.0))(improved, policy, policy)
        >>> fit.kl["policy"]
        tensor([0., 0., 0., 0., 0.])
    """

    readings = ("entropy",)

    def __init__(self, alpha_policy: KLMultiplier) -> None:
        super().__init__()
        self.multipliers = nn.ModuleDict({"policy": alpha_policy})

    def forward(
        self,
        improved: TensorDictBase,
        policy: d.Distribution,
        reference: d.Distribution,
    ) -> Fit:
        """Compares the online policy with the result of the E-step.

        Args:
            improved (TensorDictBase): ``"action"`` ``[*B, N, A]``, ``"weight"`` ``[*B, N]``.
            policy (Distribution): the online policy, batch ``[*B]``.
            reference (Distribution): the policy that drew the actions, batch ``[*B]``.

        Returns:
            Fit: with the constraint ``"policy"``.
        """
        weight = improved.get("weight").detach()  # a target of the fit, as the actions are
        action = improved.get("action").detach().movedim(weight.ndim - 1, 0)  # [N, *B, A]
        drawn = per_state(log_prob(policy, action), 1 + weight[..., 0].ndim)  # [N, *B]
        kl = _kl(reference, policy, action, drawn)
        readings = {"entropy": entropy_of(policy, -drawn.mean(0))}
        return Fit(-(weight.movedim(-1, 0) * drawn).sum(0), {"policy": kl}, readings)


def _kl(reference: d.Distribution, policy: d.Distribution, action: Tensor, drawn: Tensor) -> Tensor:
    batch_dims = drawn.ndim - 1
    try:
        return per_state(d.kl_divergence(reference, policy), batch_dims)
    except NotImplementedError:
        with torch.no_grad():
            drawn_ref = per_state(log_prob(reference, action), 1 + batch_dims)
        return estimated_kl(drawn_ref, drawn).mean(0)
