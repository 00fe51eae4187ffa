"""The M-step: fit a Gaussian to the weighted actions, mean and stddev apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mpo_torchrl.functional.checks import require_same_shape


def decoupled_gaussian_kl(
    loc_ref: Tensor, scale_ref: Tensor, loc: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    r"""KL from the reference to the online Gaussian, mean and stddev each on its own.

    .. math::
        \mathrm{KL}^{\mu}_d = \tfrac12 \Big(\frac{\mu_{0,d} - \mu_d}{\sigma_{0,d}}\Big)^2, \qquad
        \mathrm{KL}^{\sigma}_d = \tfrac12 (r_d^2 - 1) - \log r_d, \quad
        r_d = \frac{\sigma_{0,d}}{\sigma_d}

    The first is :math:`\mathrm{KL}(\mathcal N(\mu_0, \sigma_0) \Vert \mathcal N(\mu, \sigma_0))`,
    the second :math:`\mathrm{KL}(\mathcal N(\mu_0, \sigma_0) \Vert \mathcal N(\mu_0, \sigma))`.
    Bounding them apart keeps the variance from collapsing before the mean has moved:
    `Abdolmaleki et al. (2018) <https://arxiv.org/abs/1812.02256>`_. A bijection of both
    policies, such as tanh, changes neither.

    Args:
        loc_ref (Tensor): ``[*B, A]``, mean of the reference policy, unit of action.
        scale_ref (Tensor): ``[*B, A]``, its stddev, positive, unit of action.
        loc (Tensor): ``[*B, A]``, mean of the online policy, unit of action.
        scale (Tensor): ``[*B, A]``, its stddev, positive, unit of action.

    Returns:
        tuple[Tensor, Tensor]: KL of the means and of the stddevs, each ``[*B, A]``, nats.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import decoupled_gaussian_kl
        >>> zero, one = torch.zeros(1, 1), torch.ones(1, 1)
        >>> decoupled_gaussian_kl(zero, one, loc=one, scale=2 * one)
        (tensor([[0.5000]]), tensor([[0.3181]]))
    """
    kl_mean = 0.5 * ((loc_ref - loc) / scale_ref).square()
    # In r - 1 and log1p: the bounds on this KL are as small as 1e-6, where the plain form
    # has lost most digits of a float32.
    excess = (scale_ref - scale) / scale
    # A reference far narrower rounds r - 1 to -1, whose log1p is infinite: there the plain form.
    log_ratio = torch.where(
        excess > -0.5, torch.log1p(excess.clamp(min=-0.5)), scale_ref.log() - scale.log()
    )
    kl_stddev = excess + 0.5 * excess.square() - log_ratio
    return kl_mean, kl_stddev


def decoupled_gaussian_nll(
    action: Tensor,
    weight: Tensor,
    loc_ref: Tensor,
    scale_ref: Tensor,
    loc: Tensor,
    scale: Tensor,
) -> Tensor:
    r"""Weighted negative log-likelihood of the actions, mean and stddev fitted apart.

    .. math::
        -\sum_{n=1}^N w_n \big[\log \mathcal N(a_n; \mu, \sigma_0)
        + \log \mathcal N(a_n; \mu_0, \sigma)\big]

    The mean is fitted under the reference stddev and conversely, so that neither hides
    the other's error: `Abdolmaleki et al. (2018) <https://arxiv.org/abs/1812.02256>`_.
    A Gaussian sees the actions only through their weighted mean and spread; these are
    formed first, so that the graph holds nothing of size ``N``.

    Args:
        action (Tensor): ``[*B, N, A]``, actions before any squashing, unit of action.
        weight (Tensor): ``[*B, N]``, weights of the E-step; their sum need not be 1.
        loc_ref (Tensor): ``[*B, A]``, mean of the reference policy, unit of action.
        scale_ref (Tensor): ``[*B, A]``, its stddev, positive, unit of action.
        loc (Tensor): ``[*B, A]``, mean of the online policy, unit of action.
        scale (Tensor): ``[*B, A]``, its stddev, positive, unit of action.

    Returns:
        Tensor: ``[*B]``, nats. The gradient reaches the two policies only.

    Raises:
        ValueError: if the shapes of ``action``, ``weight`` and ``loc`` disagree.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import decoupled_gaussian_nll
        >>> zero, one = torch.zeros(1, 1), torch.ones(1, 1)
        >>> decoupled_gaussian_nll(torch.tensor([[[1.0]]]), one, zero, one, zero, one)
        tensor([2.8379])
    """
    if action.shape[:-1] != weight.shape or action.shape[:-2] + action.shape[-1:] != loc.shape:
        raise ValueError(
            "action, weight and loc must be [*B, N, A], [*B, N] and [*B, A], got "
            f"{tuple(action.shape)}, {tuple(weight.shape)} and {tuple(loc.shape)}."
        )
    # Targets of a regression: neither the draws nor their weights may learn from the fit.
    action, weight = action.detach(), weight.detach()
    mass = weight.sum(-1, keepdim=True)  # [*B, 1]
    column = weight.unsqueeze(-1)  # [*B, N, 1]
    # Weights that are all zero, masked or far below the best of a batch, count for nothing.
    # Sums of products, not matrix products, which autocast would round.
    center = (column * action).sum(-2) / mass.clamp(min=torch.finfo(mass.dtype).tiny)  # [*B, A]
    spread = (column * (action - center.unsqueeze(-2)).square()).sum(-2)  # [*B, A]

    squares_mean = (spread + mass * (center - loc).square()) / scale_ref.square()
    squares_stddev = (spread + mass * (center - loc_ref).square()) / scale.square()
    log_normalizer = mass * (scale_ref.log() + scale.log() + math.log(2 * math.pi))
    return (0.5 * (squares_mean + squares_stddev) + log_normalizer).sum(-1)


def categorical_kl(logits_ref: Tensor, logits: Tensor) -> Tensor:
    r"""How far a categorical policy has moved from its reference.

    .. math:: \mathrm{KL} = \sum_a \pi_0(a) \big[\log \pi_0(a) - \log \pi(a)\big]

    From `Abdolmaleki et al. (2018) <https://arxiv.org/abs/1806.06920>`_, the trust region of
    the M-step.

    Args:
        logits_ref (Tensor): ``[*B, A]``, of the reference policy; ``-inf`` where masked.
        logits (Tensor): ``[*B, A]``, of the online policy, masked as the reference is.

    Returns:
        Tensor: ``[*B]``, nats. The gradient reaches both policies.

    Raises:
        ValueError: if the shapes differ.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import categorical_kl
        >>> categorical_kl(torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2))
        tensor([0.1109])
    """
    require_same_shape(logits_ref=logits_ref, logits=logits)
    log_ref, log_prob = torch.log_softmax(logits_ref, -1), torch.log_softmax(logits, -1)
    return _expected(log_ref.exp(), log_ref - log_prob)


def categorical_nll(weight: Tensor, logits: Tensor) -> Tensor:
    r"""Weighted negative log-likelihood of all actions: the cross entropy to fit.

    .. math:: -\sum_a w_a \log \pi(a)

    From `Abdolmaleki et al. (2018) <https://arxiv.org/abs/1806.06920>`_, the M-step where every
    action has a weight.

    Args:
        weight (Tensor): ``[*B, A]``, the improved policy, 0 where masked.
        logits (Tensor): ``[*B, A]``, of the online policy; ``-inf`` where masked.

    Returns:
        Tensor: ``[*B]``, nats. The gradient reaches ``logits`` only.

    Raises:
        ValueError: if the shapes differ.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import categorical_nll
        >>> categorical_nll(torch.tensor([[0.5, 0.5]]), torch.zeros(1, 2))
        tensor([0.6931])
    """
    require_same_shape(weight=weight, logits=logits)
    return _expected(weight.detach(), -torch.log_softmax(logits, -1))


def _expected(prob: Tensor, value: Tensor) -> Tensor:
    """The mean of values under probabilities; what is impossible may be infinite."""
    return (prob * value.masked_fill(prob == 0, 0.0)).sum(-1)
