"""What every M-step returns, and how it is put together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch import distributions as d

from mpo_torchrl.distributions import categorical_logits, per_state
from mpo_torchrl.dual import KLMultiplier
from mpo_torchrl.functional import categorical_nll


@dataclass
class Fit:
    """How well the online policy matches the weights, and how far it moved for it.

    Args:
        nll (Tensor): ``[*B]``, weighted negative log-likelihood of the actions, nats.
        kl (dict): a KL for each constraint: ``[*B, A]`` if per dimension, else ``[*B]``, nats.
        readings (dict): ``[*B]`` each, detached: what else is worth a plot.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.m_step import Fit
        >>> fit = Fit(nll=torch.tensor([1.5]), kl={"policy": torch.tensor([0.01])})
        >>> fit.kl["policy"], fit.readings
        (tensor([0.0100]), {})
    """

    nll: Tensor
    kl: dict[str, Tensor]
    readings: dict[str, Tensor] = field(default_factory=dict)


def per_constraint(name: str, multiplier: KLMultiplier, kl: Tensor) -> Tensor:
    """KLs of the dimensions ``[*B, A]`` as the multiplier bounds them: so, or their sum ``[*B]``.

    Raises:
        ValueError: if the multiplier does not match the action's size.
    """
    shape = multiplier.raw.shape
    if not shape:
        return kl.sum(-1)
    if shape != kl.shape[-1:]:
        raise ValueError(
            f"alpha_{name} has {shape[0]} multipliers and the policy {kl.shape[-1]} action "
            "dimensions; pass the action_spec of this policy."
        )
    return kl


def bounded_kls(
    multipliers: nn.ModuleDict, kl_mean: Tensor, kl_stddev: Tensor
) -> dict[str, Tensor]:
    """The KLs of means and stddevs ``[*B, A]``, each as its multiplier bounds it."""
    duals = cast(dict[str, KLMultiplier], multipliers)
    kl = {"mean": kl_mean, "stddev": kl_stddev}
    return {name: per_constraint(name, duals[name], kl[name]) for name in kl}


def estimated_kl(log_prob_ref: Tensor, log_prob: Tensor) -> Tensor:
    r"""What one action of the reference says of its KL to the policy: :math:`r - 1 - \log r`.

    Its mean is the KL and, unlike that of :math:`-\log r`, no value is negative, so that no policy
    is paid for making every action of a batch likelier.
    """
    log_ratio = log_prob - log_prob_ref
    return torch.expm1(log_ratio) - log_ratio


@torch.no_grad()
def entropy_of(policy: d.Distribution, otherwise: Tensor) -> Tensor:
    """The entropy ``[*B]`` of a policy, detached; ``otherwise`` where torch knows none."""
    logits = categorical_logits(policy)
    if logits is not None:  # masked choices make no NaN here
        return per_state(categorical_nll(logits.softmax(-1), logits), otherwise.ndim)
    try:
        return per_state(policy.entropy(), otherwise.ndim)
    except NotImplementedError:
        return otherwise.detach()


def gaussian_readings(scale: Tensor) -> dict[str, Tensor]:
    """Entropy in nats and mean stddev of a Gaussian, ``[*B]`` each, from stddevs ``[*B, A]``."""
    scale = scale.detach()
    return {
        "entropy": (scale.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1),
        "policy_stddev": scale.mean(-1),
    }
