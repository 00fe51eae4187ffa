"""The E-step on a data set: which of its actions were better than the policy's.

``*B`` are all dimensions of the batch. A data set holds one action a state, so that weights are
over the whole batch, as in V-MPO.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mpo_torchrl.functional.checks import require_samples
from mpo_torchrl.functional.vmpo import vmpo_weights


def sampled_advantage(q_taken: Tensor, q_policy: Tensor) -> Tensor:
    r"""How much better the action taken is than what the policy would do, by the critic's word.

    .. math:: A = Q(s, a) - \frac1N \sum_{n=1}^N Q(s, a_n), \qquad a_n \sim \pi(\cdot \mid s)

    From `Wang et al. (2020) <https://arxiv.org/abs/2006.15134>`_, critic regularized regression
    with the mean for a baseline. What depends on the state alone cancels.

    Args:
        q_taken (Tensor): ``[*B]``, values of the actions taken, unit of return.
        q_policy (Tensor): ``[*B, N]``, values of ``N`` actions of the policy, unit of return.

    Returns:
        Tensor: ``[*B]``, unit of return; carries no gradient.

    Raises:
        ValueError: if the shapes disagree or there is no sample.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import sampled_advantage
        >>> sampled_advantage(torch.tensor([3.0]), torch.tensor([[1.0, 3.0]]))
        tensor([1.])
    """
    require_samples("q_policy", q_policy)
    if q_policy.shape[:-1] != q_taken.shape:
        raise ValueError(
            "q_taken and q_policy must be [*B] and [*B, N], got "
            f"{tuple(q_taken.shape)} and {tuple(q_policy.shape)}."
        )
    # The policy is fitted to what the critic says; the critic must not learn to say it.
    q_taken, q_policy = q_taken.detach(), q_policy.detach()
    # The mean of differences, not a difference of means: equal values give exactly zero.
    return (q_taken.unsqueeze(-1) - q_policy).mean(-1)


def behaviour_weights(
    advantage: Tensor,
    temperature: Tensor | float,
    max_weight: float = 20.0,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Weights of the actions of a data set: 1 on average, more for the better ones.

    .. math:: w_i = \min\Big(\frac{e^{A_i / \eta}}{\frac1M \sum_{j=1}^M e^{A_j / \eta}},\,
        w_{\max}\Big)

    Without the clipping it is the data's own distribution, tilted towards high advantages:
    :math:`q(s, a) \propto d(s, a)\, e^{A(s, a) / \eta}` over the ``M`` transitions of the batch, as
    in AWAC, `Nair et al. (2020) <https://arxiv.org/abs/2006.09359>`_. CRR, `Wang et al. (2020)
    <https://arxiv.org/abs/2006.15134>`_, clips :math:`e^{A / \eta}` itself, at 20; relative to the
    mean, an offset of the advantages does not decide how many are clipped.

    Args:
        advantage (Tensor): ``[*B]``, unit of return.
        temperature (Tensor or float): ``[]``, positive, unit of return; infinite for equal weights.
        max_weight (float): what weights are clipped to, at least 1; ``20.0`` by default.
        mask (Tensor, optional): ``[*B]``, the transitions that count; all by default.

    Returns:
        Tensor: ``[*B]``, between 0 and ``max_weight``, 0 where masked; carries no gradient. The
        mean over what counts is 1, or below it where something is clipped.

    Raises:
        ValueError: if ``max_weight`` is below 1 or the shapes differ.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import behaviour_weights
        >>> behaviour_weights(torch.tensor([0.0, 1.0]), temperature=1.0)
        tensor([0.5379, 1.4621])
        >>> behaviour_weights(torch.tensor([0.0, 1.0]), temperature=1.0, max_weight=1.25)
        tensor([0.5379, 1.2500])
    """
    if not max_weight >= 1:
        raise ValueError(
            f"max_weight must be at least 1, the mean of the weights it clips, got {max_weight}."
        )
    count = advantage.numel() if mask is None else mask.sum()
    weight = vmpo_weights(advantage, temperature, top_k_fraction=1.0, mask=mask)
    return torch.clamp(weight * count, max=max_weight)
