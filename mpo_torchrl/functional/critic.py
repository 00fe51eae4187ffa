"""Critic targets: returns over several steps, and values as distributions.

``K`` is the number of atoms or quantiles, ``T`` of time steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mpo_torchrl.functional.checks import require_same_shape


def retrace_return(
    reward: Tensor, discount: Tensor, next_value: Tensor, next_q_value: Tensor, trace: Tensor
) -> Tensor:
    r"""Off-policy returns over several steps, cut where the behaviour left the policy.

    .. math:: G_t = r_t + \gamma_t \big(V_{t+1} - c_{t+1} Q_{t+1} + c_{t+1} G_{t+1}\big), \qquad
        c_t = \lambda \min\Big(1, \frac{\pi(a_t \mid s_t)}{\mu(a_t \mid s_t)}\Big)

    and :math:`G = r + \gamma V` at the last step. With a trace of 0 this is TD(0), with a trace
    of 1 where the actions are those of the policy an n-step return.
    From `Munos et al. (2016) <https://arxiv.org/abs/1606.02647>`_.

    Args:
        reward (Tensor): ``[*B, T]``, received after the action at step ``t``.
        discount (Tensor): ``[*B, T]``, of what follows; 0 after a termination.
        next_value (Tensor): ``[*B, T]``, value of the policy in the next state.
        next_q_value (Tensor): ``[*B, T - 1]``, value of the action taken in the next state.
        trace (Tensor): ``[*B, T - 1]``, :math:`c` of the action taken in the next state.

    Returns:
        Tensor: ``[*B, T]``, unit of return.

    Raises:
        ValueError: if the shapes do not fit, or there is no step.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import retrace_return
        >>> one = torch.ones(1, 2)
        >>> retrace_return(one, 0.5 * one, 4 * one, 2 * one[:, :1], one[:, :1])
        tensor([[3.5000, 3.0000]])
    """
    require_same_shape(reward=reward, discount=discount, next_value=next_value)
    if not reward.ndim or not reward.shape[-1]:
        raise ValueError(f"reward must be [*B, T] with T at least 1, got {list(reward.shape)}.")
    require_same_shape(
        next_q_value=next_q_value, trace=trace, **{"reward without its last step": reward[..., 1:]}
    )
    returns = [reward[..., -1] + discount[..., -1] * next_value[..., -1]]
    for t in reversed(range(reward.shape[-1] - 1)):
        correction = trace[..., t] * (returns[-1] - next_q_value[..., t])
        returns.append(reward[..., t] + discount[..., t] * (next_value[..., t] + correction))
    return torch.stack(returns[::-1], -1)


def n_step_return(
    reward: Tensor,
    discount: Tensor,
    next_value: Tensor,
    num_steps: int,
    lmbda: Tensor | float = 1.0,
) -> Tensor:
    r"""Returns over at most ``num_steps`` steps of a sequence, then the value there.

    .. math:: G_t = r_t + \gamma_t \big((1 - \lambda_t) V_{t+1} + \lambda_t G_{t+1}\big)

    unrolled ``num_steps`` times; past the end of the sequence the last value stands in.
    From `Sutton and Barto (2018), chapter 7 <http://incompleteideas.net/book/the-book-2nd.html>`_,
    as rlax computes it.

    Args:
        reward (Tensor): ``[*B, T]``, received after the action at step ``t``.
        discount (Tensor): ``[*B, T]``, of what follows; 0 after a termination.
        next_value (Tensor): ``[*B, T]``, value of the next state.
        num_steps (int): steps before the value takes over.
        lmbda (Tensor or float): ``[*B, T]`` or a number, how far to trust the longer return.

    Returns:
        Tensor: ``[*B, T]``, unit of return.

    Raises:
        ValueError: if the shapes differ or ``num_steps`` is below 1.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import n_step_return
        >>> one = torch.ones(1, 3)
        >>> n_step_return(one, 0.5 * one, 4 * one, num_steps=2)
        tensor([[2.5000, 2.5000, 3.0000]])
    """
    require_same_shape(reward=reward, discount=discount, next_value=next_value)
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}.")
    length = reward.shape[-1]
    lmbda = torch.as_tensor(lmbda, dtype=reward.dtype, device=reward.device).expand_as(reward)
    last_value = next_value[..., -1:]
    surplus = num_steps - 1

    def extended(entry: Tensor, filling: Tensor) -> Tensor:
        return torch.cat([entry, filling.expand(*entry.shape[:-1], surplus)], -1)

    # Past the end: no reward and no discount, so that the last value is passed on as it is.
    zero, one = torch.zeros_like(last_value), torch.ones_like(last_value)
    reward, discount = extended(reward, zero), extended(discount, one)
    lmbda, value = extended(lmbda, one), extended(next_value, last_value)
    returns = value[..., surplus : surplus + length]
    for i in reversed(range(num_steps)):
        window = slice(i, i + length)
        mixed = (1 - lmbda[..., window]) * value[..., window] + lmbda[..., window] * returns
        returns = reward[..., window] + discount[..., window] * mixed
    return returns


def categorical_projection(probs: Tensor, atoms: Tensor, support: Tensor) -> Tensor:
    r"""Moves a categorical distribution onto a fixed support.

    .. math:: p'_i = \sum_k p_k \Big[1 - \frac{|\mathrm{clip}(x_k) - z_i|}{\Delta_k}\Big]_0^1

    Each atom :math:`x_k`, clipped to the support, is shared between its two neighbours
    :math:`z_i`, which are :math:`\Delta_k` apart, in proportion to their nearness, which keeps the
    mean where nothing is clipped. From `Bellemare et al. (2017)
    <https://arxiv.org/abs/1707.06887>`_, there for evenly spaced atoms; here for any.

    Args:
        probs (Tensor): ``[*B, K]``, probability of each atom.
        atoms (Tensor): ``[*B, K]``, where the atoms are, unit of return.
        support (Tensor): ``[K']``, increasing, unit of return.

    Returns:
        Tensor: ``[*B, K']``, probabilities on the support.

    Raises:
        ValueError: if ``probs`` and ``atoms`` differ in shape or the support has fewer than two
            atoms.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import categorical_projection
        >>> categorical_projection(
        ...     torch.tensor([1.0]), torch.tensor([0.25]), support=torch.tensor([0.0, 1.0, 2.0])
        ... )
        tensor([0.7500, 0.2500, 0.0000])
    """
    require_same_shape(probs=probs, atoms=atoms)
    _require_support(support)
    atoms = atoms.clamp(support[0], support[-1])
    upper = torch.searchsorted(support, atoms.contiguous(), right=True)
    upper = upper.clamp(1, support.shape[0] - 1)
    low, high = support[upper - 1], support[upper]
    to_upper = (atoms - low) / (high - low)
    probs = probs.to(to_upper.dtype)  # autocast has them in another precision
    projected = probs.new_zeros(*probs.shape[:-1], support.shape[0])
    projected = projected.scatter_add(-1, upper - 1, probs * (1 - to_upper))
    return projected.scatter_add(-1, upper, probs * to_upper)


def two_hot_encode(value: Tensor, support: Tensor) -> Tensor:
    r"""A number as a distribution over its two neighbours on a support.

    .. math:: p_{\mathrm{low}} = \frac{z_{\mathrm{up}} - x}{z_{\mathrm{up}} - z_{\mathrm{low}}
        + 10^{-5}}, \qquad p_{\mathrm{up}} = 1 - p_{\mathrm{low}}

    with rlax's offset. Numbers outside the support go to its ends.
    From `Schrittwieser et al. (2019) <https://arxiv.org/abs/1911.08265>`_.

    Args:
        value (Tensor): ``[*B]``, unit of return, transformed as the support is.
        support (Tensor): ``[K]``, increasing.

    Returns:
        Tensor: ``[*B, K]``, at most two entries of a row are not 0.

    Raises:
        ValueError: if the support has fewer than two atoms.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import two_hot_encode
        >>> two_hot_encode(torch.tensor([1.5]), support=torch.tensor([0.0, 1.0, 2.0]))
        tensor([[0.0000, 0.5000, 0.5000]])
    """
    _require_support(support)
    value = value.clamp(support[0], support[-1]).unsqueeze(-1)
    upper = torch.searchsorted(support, value.contiguous(), right=False)
    lower = (upper - 1).clamp(min=0)
    share = (support[upper] - value) / (support[upper] - support[lower] + 1e-5)
    encoded = value.new_zeros(*value.shape[:-1], support.shape[0])
    return encoded.scatter_add(-1, lower, share).scatter_add(-1, upper, 1 - share)


def two_hot_decode(probs: Tensor, support: Tensor) -> Tensor:
    r"""The mean of a distribution over a support: what :func:`two_hot_encode` was given.

    .. math:: x = \sum_k p_k z_k

    From `Schrittwieser et al. (2019) <https://arxiv.org/abs/1911.08265>`_.

    Args:
        probs (Tensor): ``[*B, K]``, sums to 1 over ``K``.
        support (Tensor): ``[K]``, unit of return.

    Returns:
        Tensor: ``[*B]``, unit of return.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import two_hot_decode
        >>> two_hot_decode(torch.tensor([[0.0, 0.5, 0.5]]), support=torch.tensor([0.0, 1.0, 2.0]))
        tensor([1.5000])
    """
    return (probs * support).sum(-1)


def signed_hyperbolic(x: Tensor, eps: float = 1e-3) -> Tensor:
    r"""Shrinks large values so that a network can follow them.

    .. math:: h(x) = \mathrm{sign}(x) \big(\sqrt{|x| + 1} - 1\big) + \varepsilon x

    From `Pohlen et al. (2018) <https://arxiv.org/abs/1805.11593>`_.

    Args:
        x (Tensor): any shape, unit of return.
        eps (float): slope far from 0; keeps the inverse Lipschitz.

    Returns:
        Tensor: the shape of ``x``.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import signed_hyperbolic
        >>> signed_hyperbolic(torch.tensor([-3.0, 0.0, 8.0]))
        tensor([-1.0030,  0.0000,  2.0080])
    """
    return torch.sign(x) * (torch.sqrt(x.abs() + 1) - 1) + eps * x


def signed_parabolic(x: Tensor, eps: float = 1e-3) -> Tensor:
    r"""The inverse of :func:`signed_hyperbolic`.

    .. math:: h^{-1}(x) = \mathrm{sign}(x) \Big[\Big(\frac{\sqrt{1 + 4\varepsilon
        (|x| + 1 + \varepsilon)} - 1}{2 \varepsilon}\Big)^2 - 1\Big]

    From `Pohlen et al. (2018) <https://arxiv.org/abs/1805.11593>`_, proposition A.2.

    Args:
        x (Tensor): any shape.
        eps (float): that of the transform.

    Returns:
        Tensor: the shape of ``x``, unit of return.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import signed_hyperbolic, signed_parabolic
        >>> x = torch.tensor([-3.0, 0.0, 8.0], dtype=torch.float64)
        >>> signed_parabolic(signed_hyperbolic(x))
        tensor([-3.0000,  0.0000,  8.0000], dtype=torch.float64)
    """
    # With u = (root - 1) / (2 eps), the result is u^2 - 1 = (u - 1)(u + 1). Neither u nor u - 1 is
    # taken as a difference of numbers that are close: it would cost float32 three of its digits.
    size = x.abs()
    root = torch.sqrt(1 + 4 * eps * (size + 1 + eps))
    u = 2 * (size + 1 + eps) / (root + 1)
    u_minus_1 = (2 * size - 4 * eps * size / (root + 1 + 2 * eps)) / (root + 1)
    return torch.sign(x) * u_minus_1 * (u + 1)


def quantile_regression_loss(
    quantiles: Tensor, levels: Tensor, target: Tensor, huber_threshold: float = 1.0
) -> Tensor:
    r"""Moves each quantile to where its share of the target lies below it.

    .. math:: \ell = \sum_i \operatorname{mean}_j
        \big|\tau_i - [\delta_{ij} < 0]\big|\, H(\delta_{ij}), \quad \delta_{ij} = y_j - x_i

    with the Huber function :math:`H`, not divided by its threshold, or :math:`|\delta|` where the
    threshold is 0. From `Dabney et al. (2017) <https://arxiv.org/abs/1710.10044>`_.

    Args:
        quantiles (Tensor): ``[*B, K]``, predicted, unit of return.
        levels (Tensor): ``[*B, K]`` or ``[K]``, of each quantile, in (0, 1).
        target (Tensor): ``[*B, K']``, samples or quantiles of the target, unit of return.
        huber_threshold (float): where the loss turns from quadratic to linear, unit of return.

    Returns:
        Tensor: ``[*B]``. The gradient reaches ``quantiles`` only.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import quantile_regression_loss
        >>> quantile_regression_loss(
        ...     torch.tensor([[0.0]]), torch.tensor([0.5]), torch.tensor([[3.0]])
        ... )
        tensor([1.2500])
    """
    error = target.detach().unsqueeze(-2) - quantiles.unsqueeze(-1)  # [*B, K, K']
    weight = (levels.unsqueeze(-1) - (error.detach() < 0).to(error.dtype)).abs()
    size = error.abs()
    if huber_threshold > 0:
        inside = size.clamp(max=huber_threshold)
        size = 0.5 * inside.square() + huber_threshold * (size - inside)
    return (weight * size).mean(-1).sum(-1)


def _require_support(support: Tensor) -> None:
    if support.ndim != 1 or support.shape[0] < 2:
        raise ValueError(
            f"support must be [K] with K at least 2, increasing, got shape {tuple(support.shape)}."
        )
