"""The M-step on the actions that were taken, one a state."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch import distributions as d

from mpo_torchrl.distributions import (
    GaussianBase,
    categorical_logits,
    gaussian_base,
    per_state,
)
from mpo_torchrl.dual import KLMultiplier
from mpo_torchrl.functional import categorical_kl, decoupled_gaussian_kl
from mpo_torchrl.m_step.fit import (
    Fit,
    bounded_kls,
    entropy_of,
    estimated_kl,
    gaussian_readings,
)


class LikelihoodMStep(nn.Module):
    r"""Makes the actions that were taken as much likelier as their weights say.

    .. math:: -w \log \pi_\theta(a \mid s), \qquad
        \mathrm{KL}(\pi_0 \Vert \pi_\theta) \le \epsilon

    With the multipliers ``"mean"`` and ``"stddev"`` the policy is a Gaussian or a bijection of
    one, and the KL is :func:`~mpo_torchrl.functional.decoupled_gaussian_kl`; the likelihood is
    not decoupled. With the one multiplier ``"policy"`` it may be any distribution: the KL is
    exact for categorical ones, masked or not, and wherever torch knows it, else the estimate
    :math:`r - 1 - \log r`, :math:`r = \pi_\theta(a) / \pi_0(a)`, from the action taken: its mean
    under the reference is the KL, and unlike :math:`-\log r` it is never negative, so that no
    policy is paid for making every action of a batch likelier. From `Song et al. (2019)
    <https://arxiv.org/abs/1909.12238>`_, the M-step and the appendix on decoupled constraints.

    Args:
        multipliers (mapping): ``"mean"`` and ``"stddev"``, or ``"policy"``.

    Raises:
        ValueError: if the names of the multipliers are others.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from mpo_torchrl.dual import KLMultiplier
        >>> from mpo_torchrl.m_step import LikelihoodMStep
        >>> policy = torch.distributions.Categorical(logits=torch.zeros(5, 3))
        >>> improved = TensorDict(action=torch.zeros(5), weight=torch.full((5,), 0.2))
        >>> fit = LikelihoodMStep({"policy": KLMultiplier(0.01, 1.0)})(improved, policy, policy)
        >>> fit.nll
        tensor([0.2197, 0.2197, 0.2197, 0.2197, 0.2197])
    """

    def __init__(self, multipliers: Mapping[str, KLMultiplier]) -> None:
        super().__init__()
        if set(multipliers) not in ({"mean", "stddev"}, {"policy"}):
            raise ValueError(
                "LikelihoodMStep has the multipliers 'mean' and 'stddev', or 'policy', got "
                f"{sorted(multipliers)}."
            )
        self.multipliers = nn.ModuleDict(multipliers)
        self.is_gaussian = "mean" in self.multipliers
        self.readings = ("entropy", "policy_stddev") if self.is_gaussian else ("entropy",)

    def forward(
        self, improved: TensorDictBase, policy: d.Distribution, reference: d.Distribution
    ) -> Fit:
        """Compares the online policy with the result of the E-step.

        Args:
            improved (TensorDictBase): ``"action"`` ``[*B, A]`` or ``[*B]``, ``"weight"`` ``[*B]``.
            policy (Distribution): the online policy, batch ``[*B]``.
            reference (Distribution): the policy that took the actions, batch ``[*B]``.

        Returns:
            Fit: with the constraints ``"mean"`` and ``"stddev"``, or ``"policy"``.

        Raises:
            TypeError: if there is no Gaussian at the base of the policy and there should be.
        """
        # Targets of a regression: neither the actions nor their weights may learn from the fit.
        action, weight = improved.get("action").detach(), improved.get("weight").detach()
        log_prob = per_state(policy.log_prob(action), weight.ndim)
        if self.is_gaussian:
            kl, readings = self._gaussian_kl(policy, reference)
        else:
            kl, readings = self._joint_kl(policy, reference, action, log_prob)
        # What does not count may be impossible.
        return Fit(-weight * log_prob.masked_fill(weight == 0, 0.0), kl, readings)

    def _gaussian_kl(
        self, policy: d.Distribution, reference: d.Distribution
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        base, base_ref = _require_gaussian(policy), _require_gaussian(reference)
        kl_mean, kl_stddev = decoupled_gaussian_kl(
            base_ref.loc, base_ref.scale, base.loc, base.scale
        )
        kl = bounded_kls(self.multipliers, kl_mean, kl_stddev)
        return kl, gaussian_readings(base.scale)

    def _joint_kl(
        self, policy: d.Distribution, reference: d.Distribution, action: Tensor, log_prob: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        readings = {"entropy": entropy_of(policy, -log_prob)}
        logits, logits_ref = categorical_logits(policy), categorical_logits(reference)
        if logits is None or logits_ref is None:
            return {"policy": _kl(reference, policy, action, log_prob)}, readings
        return {"policy": per_state(categorical_kl(logits_ref, logits), log_prob.ndim)}, readings


def _require_gaussian(policy: d.Distribution) -> GaussianBase:
    base = gaussian_base(policy)
    if base is None:
        raise TypeError(
            "the multipliers 'mean' and 'stddev' are for Gaussians and bijections of them, got "
            f"{type(policy).__name__}; use the multiplier 'policy'."
        )
    return base


def _kl(
    reference: d.Distribution, policy: d.Distribution, action: Tensor, log_prob: Tensor
) -> Tensor:
    try:
        return per_state(d.kl_divergence(reference, policy), log_prob.ndim)
    except NotImplementedError:
        with torch.no_grad():
            log_prob_ref = per_state(reference.log_prob(action), log_prob.ndim)
        return estimated_kl(log_prob_ref, log_prob)
