"""The E-step of V-MPO: which steps of the batch were better than expected.

``*M`` are all dimensions of the batch; weights and the dual are over the whole of it, not per
state, since an on-policy batch holds one action a state.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mpo_torchrl.functional.checks import require_same_shape

_TINY = 1e-10  # rlax's, where a sum could be zero
_LEFT_OUT = 1e6  # rlax's: a step that must not count is never among the best


def vmpo_weights(
    advantage: Tensor,
    temperature: Tensor | float,
    top_k_fraction: float = 0.5,
    restarting_weight: Tensor | None = None,
    importance_weight: Tensor | None = None,
) -> Tensor:
    r"""Weights over the best part of an on-policy batch.

    .. math:: w_i = \frac{u_i}{\sum_j u_j}, \qquad u_i = k_i\,\rho_i\,e^{r_i A_i / \eta}

    where :math:`k_i` is the restarting weight :math:`r_i` of a step among the best
    ``top_k_fraction`` and 0 elsewhere, and :math:`\rho_i` the importance weight.
    From `Song et al. (2019) <https://arxiv.org/abs/1909.12238>`_, as rlax computes it.

    Args:
        advantage (Tensor): ``[*M]``, unit of return.
        temperature (Tensor or float): ``[]``, positive, unit of return.
        top_k_fraction (float): share of the batch that counts, in (0, 1].
        restarting_weight (Tensor, optional): ``[*M]``, 0 at steps whose action ended an episode
            and restarted it, else 1.
        importance_weight (Tensor, optional): ``[*M]``, of actions from an older policy.

    Returns:
        Tensor: ``[*M]``, sums to 1 over the whole batch; carries no gradient.

    Raises:
        ValueError: if the shapes differ or ``top_k_fraction`` is not in (0, 1] or leaves none.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import vmpo_weights
        >>> vmpo_weights(torch.tensor([0.0, 1.0, 2.0, -1.0]), temperature=1.0)
        tensor([0.0000, 0.2689, 0.7311, 0.0000])
    """
    scaled = _scale(advantage, temperature, top_k_fraction, restarting_weight, importance_weight)
    return (scaled.mass / (scaled.mass.sum() + _TINY)).detach()


def vmpo_temperature_loss(
    advantage: Tensor,
    temperature: Tensor | float,
    epsilon: Tensor | float,
    top_k_fraction: float = 0.5,
    restarting_weight: Tensor | None = None,
    importance_weight: Tensor | None = None,
) -> Tensor:
    r"""The dual of the E-step of V-MPO: one number for the whole batch.

    .. math:: g(\eta) = \eta\,\epsilon + \eta \log \frac{\sum_i u_i}{\sum_i k_i}

    From `Song et al. (2019) <https://arxiv.org/abs/1909.12238>`_, as rlax computes it.

    Args:
        advantage (Tensor): ``[*M]``, unit of return.
        temperature (Tensor or float): ``[]``, positive, unit of return.
        epsilon (Tensor or float): ``[]``, bound on the KL of the weights, nats.
        top_k_fraction (float): as in :func:`vmpo_weights`, and so are the following.
        restarting_weight (Tensor, optional): ``[*M]``.
        importance_weight (Tensor, optional): ``[*M]``.

    Returns:
        Tensor: ``[]``, unit of return. The gradient reaches ``temperature`` only.

    Raises:
        ValueError: as :func:`vmpo_weights`.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import vmpo_temperature_loss
        >>> vmpo_temperature_loss(
        ...     torch.tensor([0.0, 1.0, 3.0, -1.0]), torch.tensor(1.0), epsilon=0.1
        ... )
        tensor(2.5338)
    """
    scaled = _scale(advantage, temperature, top_k_fraction, restarting_weight, importance_weight)
    log_mean = torch.log(scaled.mass.sum() + _TINY) - torch.log(scaled.total + _TINY)
    return temperature * (epsilon + log_mean + scaled.highest)


class _Scaled(NamedTuple):
    mass: Tensor  # [*M], u without the factor exp(highest)
    highest: Tensor  # []
    total: Tensor  # [], the sum of k


def _scale(
    advantage: Tensor,
    temperature: Tensor | float,
    top_k_fraction: float,
    restarting_weight: Tensor | None,
    importance_weight: Tensor | None,
) -> _Scaled:
    if not 0 < top_k_fraction <= 1:
        raise ValueError(f"top_k_fraction must be in (0, 1], got {top_k_fraction}.")
    # The dual prices the greediness of the E-step; it must not teach the critic.
    advantage = advantage.detach()
    restarting = torch.ones_like(advantage) if restarting_weight is None else restarting_weight
    importance = torch.ones_like(advantage) if importance_weight is None else importance_weight
    require_same_shape(
        advantage=advantage, restarting_weight=restarting, importance_weight=importance
    )
    scaled = restarting * advantage / temperature
    highest = scaled.max()
    kept = restarting
    if top_k_fraction < 1:
        number = int(top_k_fraction * advantage.numel())
        if number < 1:
            raise ValueError(
                f"top_k_fraction={top_k_fraction} leaves none of {advantage.numel()} steps; use a "
                "larger fraction or batch."
            )
        valid = scaled.detach() - (1 - restarting) * _LEFT_OUT
        kept = restarting * (valid >= valid.flatten().topk(number).values[-1])
    mass = kept * importance * torch.exp(scaled - highest)
    return _Scaled(mass, highest, kept.sum())
