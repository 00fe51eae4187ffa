"""The dual: how greedy the E-step and how far the M-step may go."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mpo_torchrl.functional.checks import require_same_shape, require_samples
from mpo_torchrl.functional.e_step import below_highest

_FAR_BELOW = -1e4  # exp of it is zero in every dtype
_LEAST_TEMPERATURE = 1e-8  # that of a learned one
_HALVINGS, _NEWTON_STEPS = 14, 4  # to 1e-2, then squaring the error each time


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
    require_samples("q_value", q_value)
    # The dual prices the greediness of the E-step; it must not teach the critic.
    q_value = q_value.detach()
    highest = q_value.amax(-1, keepdim=True)
    # Far below the highest a weight is exactly zero; the limit keeps its slope from being 0 * inf.
    limit = temperature.detach() if isinstance(temperature, Tensor) else temperature
    below = torch.clamp(q_value - highest, min=_FAR_BELOW * limit)
    log_mean_exp = torch.logsumexp(below / temperature, dim=-1) - math.log(q_value.shape[-1])
    return temperature * (epsilon + log_mean_exp) + highest.squeeze(-1)


def optimal_temperature(
    q_value: Tensor, epsilon: Tensor | float, mask: Tensor | None = None
) -> Tensor:
    r"""The temperature that minimises the batch mean of :func:`temperature_loss`.

    .. math:: \eta^\star = \arg\min_{\eta > 0} \operatorname{mean}_{*B} g(\eta), \qquad
        \operatorname{mean}_{*B} \mathrm{KL}(w_{\eta^\star} \,\|\, \mathrm{uniform}) = \epsilon

    The dual is convex with one variable, so nothing has to be learned. The KL falls as the
    temperature rises and, by Hoeffding's lemma, is at most :math:`R^2 / 8\eta^2` for values that
    span :math:`R`; that bounds the solution from above. Halving the bracket in
    :math:`\log\eta` and a few Newton steps on :math:`\log\mathrm{KL}`, always as many, follow:
    no value is read back from an accelerator.
    From `Abdolmaleki et al. (2018) <https://arxiv.org/abs/1806.06920>`_, the dual of the
    constrained E-step, there minimised by a generic optimizer.

    Args:
        q_value (Tensor): ``[*B, N]``, values of the sampled actions, unit of return.
        epsilon (Tensor or float): ``[]``, bound on the KL averaged over states, nats.
        mask (Tensor, optional): ``[*B]``, the states that count; all by default.

    Returns:
        Tensor: ``[]``, at least 1e-8, unit of return; carries no gradient. Where even the
        greediest weights stay within the bound there is no minimum, and it is as small as can
        be.

    Raises:
        ValueError: if ``q_value`` has no sample dimension or no state, or the number ``epsilon`` is
            not positive.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import optimal_temperature
        >>> optimal_temperature(torch.tensor([[1.0, 3.0]]), epsilon=0.1)
        tensor(2.1199)
    """
    require_samples("q_value", q_value)
    if not q_value.numel():
        raise ValueError(f"q_value must hold at least one state, got {tuple(q_value.shape)}.")
    if not isinstance(epsilon, Tensor) and not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}.")
    q_value, dtype = q_value.detach(), q_value.dtype
    q_value = q_value.to(torch.promote_types(dtype, torch.float32))
    below = q_value - q_value.amax(-1, keepdim=True)
    share = torch.ones_like(below[..., 0])
    if mask is not None:
        below = torch.where(mask.unsqueeze(-1), below, torch.zeros_like(below))
        share = mask.to(below.dtype)
    share = share / share.sum().clamp(min=1)
    # In units of the widest span, whose square would overflow for very large values.
    unit = -below.min().clamp(max=-torch.finfo(below.dtype).tiny)
    below = below / unit

    def weighed(log_temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Exponents and weights in multiples of their mean, ``[*B, N]``, and the KL spent, ``[]``.

        The KL is the mean of ``w log w``: for nearly equal weights its terms cancel.
        With ``1 - w``, whose mean is zero, added to each, none is negative.
        """
        scaled = torch.clamp(below * torch.exp(-log_temperature), min=_FAR_BELOW)
        log_weight = torch.log_softmax(scaled, -1) + math.log(below.shape[-1])
        excess = torch.expm1(log_weight)
        weight = excess + 1
        kl = (weight * log_weight - excess).mean(-1)
        return scaled, weight, (share * kl).sum()

    epsilon = torch.as_tensor(epsilon, dtype=below.dtype, device=below.device)
    span = (share * below.amin(-1).square()).sum().sqrt()
    low = torch.log(_LEAST_TEMPERATURE / unit)
    high = torch.maximum(low, torch.log(span / (8 * epsilon).sqrt()))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        greedy = weighed(middle)[-1] > epsilon
        low, high = torch.where(greedy, middle, low), torch.where(greedy, high, middle)
    log_temperature = (low + high) / 2
    tiny = torch.finfo(below.dtype).tiny
    for _ in range(_NEWTON_STEPS):
        scaled, weight, kl = weighed(log_temperature)
        mean = (weight * scaled).mean(-1, keepdim=True)
        # Minus the slope of the KL in the log of the temperature.
        slope = (share * (weight * (scaled - mean).square()).mean(-1)).sum()
        step = kl * torch.log(kl.clamp(min=tiny) / epsilon) / slope.clamp(min=tiny)
        log_temperature = torch.minimum(torch.maximum(log_temperature + step, low), high)
    temperature = (log_temperature.exp() * unit).to(dtype)
    return temperature.clamp(min=torch.finfo(dtype).tiny)  # 0 in float16, it may be


def categorical_temperature_loss(
    q_value: Tensor, logits: Tensor, temperature: Tensor | float, epsilon: Tensor | float
) -> Tensor:
    r"""E-step dual over all actions of a discrete space, from the reference policy.

    .. math:: g(\eta) = \eta\,\epsilon + \eta \log \sum_a \pi(a)\, e^{Q_a / \eta}

    :func:`temperature_loss` with an exact expectation in place of the mean over samples, and
    computed as carefully. From `Abdolmaleki et al. (2018) <https://arxiv.org/abs/1806.06920>`_.

    Args:
        q_value (Tensor): ``[*B, A]``, the value of each action, unit of return.
        logits (Tensor): ``[*B, A]`` of the reference policy; ``-inf`` where an action is masked.
        temperature (Tensor or float): ``[]`` or ``[1]``, positive, unit of return.
        epsilon (Tensor or float): ``[]``, bound on the KL averaged over states, nats.

    Returns:
        Tensor: ``[*B]``, unit of return. The gradient reaches ``temperature`` only.

    Raises:
        ValueError: if there is no action, or the shapes differ.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import categorical_temperature_loss
        >>> categorical_temperature_loss(
        ...     torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2), temperature=1.0, epsilon=0.1
        ... )
        tensor([2.5338])
    """
    require_samples("q_value", q_value)
    require_same_shape(q_value=q_value, logits=logits)
    log_prob = torch.log_softmax(logits.detach(), -1)
    # The dual prices the greediness of the E-step; it must not teach the critic.
    below, highest = below_highest(q_value.detach(), log_prob)
    limit = temperature.detach() if isinstance(temperature, Tensor) else temperature
    below = torch.clamp(below, min=_FAR_BELOW * limit)
    log_mean_exp = torch.logsumexp(log_prob + below / temperature, dim=-1)
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
