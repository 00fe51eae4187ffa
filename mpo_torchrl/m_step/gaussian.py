"""The M-step of a Gaussian policy, mean and stddev bounded apart."""

from __future__ import annotations

from tensordict import TensorDictBase
from torch import distributions as d
from torch import nn

from mpo_torchrl.distributions import GaussianBase, gaussian_base
from mpo_torchrl.dual import KLMultiplier
from mpo_torchrl.functional import decoupled_gaussian_kl, decoupled_gaussian_nll
from mpo_torchrl.m_step.fit import Fit, bounded_kls, gaussian_readings


class GaussianMStep(nn.Module):
    r"""Fits a Gaussian, or any bijection of one, to the weighted actions.

    .. math:: -\sum_n w_n \big[\log \mathcal N(a_n; \mu, \sigma_0)
        + \log \mathcal N(a_n; \mu_0, \sigma)\big], \qquad
        \mathrm{KL}^\mu \le \epsilon_\mu, \quad \mathrm{KL}^\sigma \le \epsilon_\sigma

    The fit is that of :func:`~mpo_torchrl.functional.decoupled_gaussian_nll`, the two
    constraints those of :func:`~mpo_torchrl.functional.decoupled_gaussian_kl`. A squashed
    policy is fitted before its squashing, which is exact: the KL of two squashed Gaussians is
    that of their bases, and the Jacobian does not depend on the policy.
    From `Abdolmaleki et al. (2018) <https://arxiv.org/abs/1812.02256>`_.

    Args:
        alpha_mean (KLMultiplier): dual of the bound on the means.
        alpha_stddev (KLMultiplier): dual of the bound on the stddevs. Each of shape ``(A,)``
            bounds every action dimension, of shape ``()`` their sum.

    Raises:
        ValueError: at the first call, if a multiplier does not match the action's size.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl.modules import IndependentNormal
        >>> from mpo_torchrl.dual import KLMultiplier
        >>> from mpo_torchrl.m_step import GaussianMStep
        >>> m_step = GaussianMStep(KLMultiplier(0.1, 1.0, shape=(2,)), KLMultiplier(1e-3, 1.0))
        >>> loc, scale = torch.zeros(5, 2), torch.ones(5, 2)
        >>> improved = TensorDict(loc=loc, scale=scale, action=torch.randn(5, 4, 2))
        >>> improved["weight"] = torch.full((5, 4), 0.25)
        >>> fit = m_step(improved, IndependentNormal(loc + 0.1, scale))
        >>> fit.nll.shape, fit.kl["mean"].shape, fit.kl["stddev"].shape
        (torch.Size([5]), torch.Size([5, 2]), torch.Size([5]))
    """

    readings = ("entropy", "policy_stddev")

    def __init__(self, alpha_mean: KLMultiplier, alpha_stddev: KLMultiplier) -> None:
        super().__init__()
        self.multipliers = nn.ModuleDict({"mean": alpha_mean, "stddev": alpha_stddev})

    def forward(
        self,
        improved: TensorDictBase,
        policy: d.Distribution | GaussianBase,
        reference: d.Distribution | GaussianBase | None = None,
    ) -> Fit:
        """Compares the online policy with the result of the E-step.

        Args:
            improved (TensorDictBase): ``"action"`` (or ``"base_action"``) ``[*B, N, A]``,
                ``"weight"`` ``[*B, N]``, ``"loc"`` and ``"scale"`` of the reference
                ``[*B, A]``.
            policy (Distribution): the online policy, batch ``[*B]``.
            reference (Distribution, optional): not needed, its mean and stddev are.

        Returns:
            Fit: with the constraints ``"mean"`` and ``"stddev"``.

        Raises:
            TypeError: if the policy has no Gaussian at its base.
            ValueError: if a squashed policy comes without ``"base_action"``.
        """
        base = gaussian_base(policy)
        if base is None:
            raise TypeError(
                "GaussianMStep fits Gaussians and bijections of them, got "
                f"{type(policy).__name__}; use DistributionMStep."
            )
        if base.transforms and improved.get("base_action", None) is None:
            raise ValueError(
                "the M-step of a squashed policy fits the samples before the squashing; put "
                "them under 'base_action' beside 'action'."
            )
        action = improved.get("base_action" if base.transforms else "action")
        loc_ref, scale_ref = improved.get("loc"), improved.get("scale")
        nll = decoupled_gaussian_nll(
            action, improved.get("weight"), loc_ref, scale_ref, base.loc, base.scale
        )
        kl_mean, kl_stddev = decoupled_gaussian_kl(loc_ref, scale_ref, base.loc, base.scale)
        kl = bounded_kls(self.multipliers, kl_mean, kl_stddev)
        return Fit(nll, kl, gaussian_readings(base.scale))
