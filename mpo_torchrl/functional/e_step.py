"""The E-step: which of the sampled actions deserve more probability."""

from __future__ import annotations

import torch
from torch import Tensor

from mpo_torchrl.functional.checks import require_same_shape, require_samples


def nonparametric_weights(q_value: Tensor, temperature: Tensor | float) -> Tensor:
    r"""Weights of the improved, non-parametric policy over the sampled actions.

    .. math:: w_n = \frac{e^{Q_n / \eta}}{\sum_{m=1}^N e^{Q_m / \eta}}

    Adding a constant to the values of a state changes nothing: the largest value is
    subtracted before the division, so that no digits are lost when returns are large.
    From `Abdolmaleki et al. (2018) <https://arxiv.org/abs/1806.06920>`_, the closed form of
    the E-step for actions drawn from the reference policy.

    Args:
        q_value (Tensor): ``[*B, N]``, values of the sampled actions, unit of return.
        temperature (Tensor or float): ``[]``, ``[1]`` or ``[*B, 1]``, positive, unit of return.

    Returns:
        Tensor: ``[*B, N]``, sums to 1 over ``N``; carries no gradient.

    Raises:
        ValueError: if ``q_value`` has no sample dimension.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import nonparametric_weights
        >>> nonparametric_weights(torch.tensor([[1.0, 3.0]]), temperature=2.0)
        tensor([[0.2689, 0.7311]])
    """
    require_samples("q_value", q_value)
    # The weights are targets of the M-step: nothing may learn by changing them.
    q_value = q_value.detach()
    temperature = temperature.detach() if isinstance(temperature, Tensor) else temperature
    return torch.softmax((q_value - q_value.amax(-1, keepdim=True)) / temperature, dim=-1)


def categorical_improvement(q_value: Tensor, logits: Tensor, temperature: Tensor | float) -> Tensor:
    r"""The improved policy over all actions of a discrete space, exactly.

    .. math:: \log q(a) = \log \pi(a) + Q_a / \eta - \log \sum_b \pi(b)\, e^{Q_b / \eta}

    From `Abdolmaleki et al. (2018) <https://arxiv.org/abs/1806.06920>`_, the E-step where
    nothing has to be sampled.

    Args:
        q_value (Tensor): ``[*B, A]``, the value of each action, unit of return.
        logits (Tensor): ``[*B, A]`` of the reference policy; ``-inf`` where an action is masked.
        temperature (Tensor or float): ``[]`` or ``[1]``, positive, unit of return.

    Returns:
        Tensor: ``[*B, A]``, log-probabilities; carries no gradient.

    Raises:
        ValueError: if there is no action, or the shapes differ.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import categorical_improvement
        >>> categorical_improvement(torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2), 2.0).exp()
        tensor([[0.2689, 0.7311]])
    """
    require_samples("q_value", q_value)
    require_same_shape(q_value=q_value, logits=logits)
    # The improved policy is the target of the M-step: nothing may learn by changing it.
    temperature = temperature.detach() if isinstance(temperature, Tensor) else temperature
    q_value, logits = q_value.detach(), logits.detach()
    log_prob = torch.log_softmax(logits, -1)
    below, _ = below_highest(q_value, log_prob)
    return torch.log_softmax(log_prob + below / temperature, dim=-1)


def below_highest(q_value: Tensor, log_prob: Tensor) -> tuple[Tensor, Tensor]:
    """Values less the highest of a possible action, ``[*B, A]``, and that one, ``[*B, 1]``.

    Exponentials are taken of these: large values would overflow or lose their digits. What is
    impossible gets 0, any finite number would do: its probability of zero removes it.
    """
    possible = log_prob > -torch.inf
    highest = q_value.masked_fill(~possible, -torch.inf).amax(-1, keepdim=True)
    return torch.where(possible, q_value - highest, torch.zeros_like(q_value)), highest


def nonparametric_kl(weight: Tensor) -> Tensor:
    r"""How far the weights lean away from uniform: the KL that the E-step spent.

    .. math:: \mathrm{KL} = \sum_n w_n \log(N w_n + 10^{-8})

    The offset, which Acme also adds, makes a weight of zero contribute zero. What is bounded in
    `Abdolmaleki et al. (2018) <https://arxiv.org/abs/1806.06920>`_, on samples.

    Args:
        weight (Tensor): ``[*B, N]``, sums to 1 over ``N``.

    Returns:
        Tensor: ``[*B]``, nats, between 0 and ``log N``.

    Raises:
        ValueError: if ``weight`` has no sample dimension.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import nonparametric_kl
        >>> nonparametric_kl(torch.tensor([[1.0, 0.0]]))
        tensor([0.6931])
    """
    require_samples("weight", weight)
    return (weight * torch.log(weight.shape[-1] * weight + 1e-8)).sum(-1)


def effective_sample_size(weight: Tensor) -> Tensor:
    r"""How many of the ``N`` sampled actions still count.

    .. math:: \mathrm{ESS} = \Big(\sum_n w_n\Big)^2 \Big/ \sum_n w_n^2

    The common measure of importance weights; see `Martino et al. (2016)
    <https://arxiv.org/abs/1602.03572>`_.

    Args:
        weight (Tensor): ``[*B, N]``, non-negative; the sum does not matter.

    Returns:
        Tensor: ``[*B]``, between 1 (one action has all the weight) and ``N`` (uniform), or 0 if no
        action has any.

    Raises:
        ValueError: if ``weight`` has no sample dimension.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import effective_sample_size
        >>> effective_sample_size(torch.tensor([[0.5, 0.5, 0.0]]))
        tensor([2.])
    """
    require_samples("weight", weight)
    squares = weight.square().sum(-1)
    return weight.sum(-1).square() / squares.clamp(min=torch.finfo(squares.dtype).tiny)


def out_of_bounds_cost(action: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    r"""Second objective of an unsquashed policy: stay inside the action space.

    .. math:: c(a) = -\lVert a - \mathrm{clip}(a, \mathrm{low}, \mathrm{high}) \rVert_2

    The plain norm, not its square, as Acme computes it. From `Abdolmaleki et al. (2020)
    <https://arxiv.org/abs/2005.07513>`_, who treat such a penalty as one more objective.

    Args:
        action (Tensor): ``[*B, N, A]``, before any clipping, unit of action.
        low (Tensor or float): ``[A]`` or ``[]``, lower bounds, unit of action.
        high (Tensor or float): ``[A]`` or ``[]``, upper bounds, unit of action.

    Returns:
        Tensor: ``[*B, N]``, at most 0, unit of action.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import out_of_bounds_cost
        >>> out_of_bounds_cost(torch.tensor([[[4.0, 5.0], [0.5, 0.0]]]), low=-1.0, high=1.0)
        tensor([[-5., -0.]])
    """
    excess = action - torch.clamp(action, torch.as_tensor(low), torch.as_tensor(high))
    return -torch.linalg.vector_norm(excess, dim=-1)
