"""Distances between predicted and sampled or projected returns.

``K`` is the number of atoms or of mixture components, ``S`` of samples.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mpo_torchrl.functional.checks import require_same_shape


def categorical_cross_entropy(logits: Tensor, probs: Tensor) -> Tensor:
    r"""How badly logits predict a categorical distribution.

    .. math:: -\sum_k p_k \log \mathrm{softmax}_k(f)

    From `Bellemare et al. (2017) <https://arxiv.org/abs/1707.06887>`_, the loss of C51.

    Args:
        logits (Tensor): ``[*B, K]``, predicted.
        probs (Tensor): ``[*B, K]`` or what broadcasts to it, the target.

    Returns:
        Tensor: ``[*B]``, nats.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import categorical_cross_entropy
        >>> categorical_cross_entropy(torch.zeros(1, 2), torch.tensor([[0.5, 0.5]]))
        tensor([0.6931])
    """
    return -(probs * logits.log_softmax(-1)).sum(-1)


def mixture_nll(sample: Tensor, logits: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    r"""How unlikely samples are under a mixture of Gaussians.

    .. math:: -\log \sum_k \mathrm{softmax}_k(f)\, \mathcal N(y; \mu_k, \sigma_k)

    From `Shahriari et al. (2022) <https://arxiv.org/abs/2204.10256>`_, the loss of a critic that
    is a mixture of Gaussians.

    Args:
        sample (Tensor): ``[*B, S]`` or what broadcasts to it, unit of return.
        logits (Tensor): ``[*B, K]``, of the components.
        loc (Tensor): ``[*B, K]``, their means, unit of return.
        scale (Tensor): ``[*B, K]``, their stddevs, unit of return.

    Returns:
        Tensor: ``[*B, S]``, nats.

    Raises:
        ValueError: if ``logits``, ``loc`` and ``scale`` differ in shape.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import mixture_nll
        >>> zero, one = torch.zeros(1, 2), torch.ones(1, 2)
        >>> mixture_nll(torch.tensor([[0.0, 1.0]]), logits=zero, loc=zero, scale=one)
        tensor([[0.9189, 1.4189]])
    """
    require_same_shape(logits=logits, loc=loc, scale=scale)
    deviation = (sample.unsqueeze(-1) - loc.unsqueeze(-2)) / scale.unsqueeze(-2)  # [*B, S, K]
    log_weight = logits.log_softmax(-1) - scale.log() - 0.5 * math.log(2 * math.pi)
    return -torch.logsumexp(log_weight.unsqueeze(-2) - 0.5 * deviation.square(), -1)


def mixture_sample(logits: Tensor, loc: Tensor, scale: Tensor, num_samples: int) -> Tensor:
    r"""Draws from a mixture of Gaussians.

    .. math:: k_s \sim \mathrm{softmax}(f), \qquad y_s = \mu_{k_s} + \sigma_{k_s} z_s, \quad
        z_s \sim \mathcal N(0, 1)

    The targets of `Shahriari et al. (2022) <https://arxiv.org/abs/2204.10256>`_ are made of such.

    Args:
        logits (Tensor): ``[*B, K]``, of the components.
        loc (Tensor): ``[*B, K]``, their means, unit of return.
        scale (Tensor): ``[*B, K]``, their stddevs, unit of return.
        num_samples (int): ``S``.

    Returns:
        Tensor: ``[*B, S]``, unit of return; no gradient reaches the logits.

    Raises:
        ValueError: if ``logits``, ``loc`` and ``scale`` differ in shape.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import mixture_sample
        >>> loc, scale = torch.tensor([3.0, 5.0]), torch.full((2,), 1e-9)
        >>> mixture_sample(torch.tensor([0.0, -100.0]), loc, scale, num_samples=3)
        tensor([3., 3., 3.])
    """
    require_same_shape(logits=logits, loc=loc, scale=scale)
    probs = logits.detach().softmax(-1)
    component = torch.multinomial(probs.reshape(-1, probs.shape[-1]), num_samples, replacement=True)
    component = component.reshape(*probs.shape[:-1], num_samples)
    loc, scale = loc.gather(-1, component), scale.gather(-1, component)
    return loc + scale * torch.randn_like(loc)
