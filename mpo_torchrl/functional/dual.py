"""The dual: how greedy the E-step and how far the M-step may go."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_FAR_BELOW = -1e4  # exp of it is zero in every dtype


def temperature_loss(
    q_value: Tensor, temperature: Tensor | float, epsilon: Tensor | float
) -> Tensor:
    r"""E-step dual: sets how far the weights may lean towards actions of high value.

    .. math:: g(\eta) = \eta\,\epsilon + \eta \log \frac{1}{N} \sum_{n=1}^N e^{Q_n / \eta}

    The slope in :math:`\eta` is ``epsilon`` minus the KL spent, so overspending raises the
    temperature. It is computed on :math:`Q - \max_n Q` and the maximum is added back: the
    plain form loses the slope to cancellation when returns are large.
    From `Abdolmaleki et al. (2018) <https://arxiv.org/abs/1806.06920>`_, the dual of the
    constrained E-step; one dual per state, averaged by the caller, so that differences
    *between* states never count.

    Args:
        q_value (Tensor): ``[*B, N]``, values of the sampled actions, unit of return.
        temperature (Tensor or float): ``[]`` or ``[1]``, positive, unit of return.
        epsilon (Tensor or float): ``[]``, bound on the KL averaged over states, nats.

    Returns:
        Tensor: ``[*B]``, unit of return. The gradient reaches ``temperature`` only.

    Raises:
        ValueError: if ``q_value`` has no sample dimension.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import temperature_loss
        >>> temperature_loss(torch.tensor([[1.0, 3.0]]), torch.tensor(1.0), epsilon=0.1)
        tensor([2.5338])
    """
    if q_value.ndim == 0 or q_value.shape[-1] == 0:
        raise ValueError(
            f"q_value must be [*B, N] with N at least 1, got shape {tuple(q_value.shape)}."
        )
    # The dual prices the greediness of the E-step; it must not teach the critic.
    q_value = q_value.detach()
    highest = q_value.amax(-1, keepdim=True)
    # Far below the highest a weight is exactly zero; the limit keeps its slope from being 0 * inf.
    limit = temperature.detach() if isinstance(temperature, Tensor) else temperature
    below = torch.clamp(q_value - highest, min=_FAR_BELOW * limit)
    log_mean_exp = torch.logsumexp(below / temperature, dim=-1) - math.log(q_value.shape[-1])
    return temperature * (epsilon + log_mean_exp) + highest.squeeze(-1)


def kl_penalty(kl: Tensor, alpha: Tensor) -> Tensor:
    r"""What a step away from the reference policy costs the actor.

    .. math:: p = \sum_d \alpha_d\,\mathrm{KL}_d

    From `Abdolmaleki et al. (2018) <https://arxiv.org/abs/1812.02256>`_, the Lagrangian of the
    M-step as the policy sees it.

    Args:
        kl (Tensor): ``[*B, A]`` with a multiplier per dimension, else ``[*B]``, nats.
        alpha (Tensor): ``[A]``, or ``[1]``, or ``[]`` where ``kl`` is ``[*B]``; at least 0.

    Returns:
        Tensor: ``[*B]``. The gradient reaches ``kl`` only.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import kl_penalty
        >>> kl_penalty(torch.tensor([[0.1, 0.2]]), alpha=torch.tensor([1.0, 2.0]))
        tensor([0.5000])
    """
    # The policy must not make the constraint cheaper by lowering its price.
    return _sum_constraints(alpha.detach() * kl, alpha)


def alpha_loss(kl: Tensor, alpha: Tensor, epsilon: Tensor | float) -> Tensor:
    r"""M-step dual: raises the price of a KL above its bound, lowers it below.

    .. math:: \ell = \sum_d \alpha_d\,(\epsilon - \mathrm{KL}_d)

    From `Abdolmaleki et al. (2018) <https://arxiv.org/abs/1812.02256>`_, the Lagrangian of the
    M-step as the multipliers see it.

    Args:
        kl (Tensor): ``[*B, A]`` with a multiplier per dimension, else ``[*B]``, nats.
        alpha (Tensor): ``[A]``, or ``[1]``, or ``[]`` where ``kl`` is ``[*B]``; at least 0.
        epsilon (Tensor or float): ``[]``, bound on each KL averaged over states, nats.

    Returns:
        Tensor: ``[*B]``. The gradient reaches ``alpha`` only.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import alpha_loss
        >>> alpha_loss(torch.tensor([[0.3]]), alpha=torch.tensor([2.0]), epsilon=0.1)
        tensor([-0.4000])
    """
    # The multipliers must not pull on the policy: kl_penalty does that.
    return _sum_constraints(alpha * (epsilon - kl.detach()), alpha)


def _sum_constraints(terms: Tensor, alpha: Tensor) -> Tensor:
    return terms.sum(-1) if alpha.ndim else terms
