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
    mask: Tensor | None = None,
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
        mask (Tensor, optional): ``[*M]``, the steps that are there at all; the others are not even
            counted in ``top_k_fraction``.

    Returns:
        Tensor: ``[*M]``, sums to 1 over the whole batch; carries no gradient.

    Raises:
        ValueError: if there is no step, the shapes differ, or ``top_k_fraction`` is not in (0, 1]
            or leaves none.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import vmpo_weights
        >>> vmpo_weights(torch.tensor([0.0, 1.0, 2.0, -1.0]), temperature=1.0)
        tensor([0.0000, 0.2689, 0.7311, 0.0000])
    """
    scaled = _scale(
        advantage, temperature, top_k_fraction, restarting_weight, importance_weight, mask
    )
    return (scaled.mass / (scaled.mass.sum() + _TINY)).detach()


def vmpo_temperature_loss(
    advantage: Tensor,
    temperature: Tensor | float,
    epsilon: Tensor | float,
    top_k_fraction: float = 0.5,
    restarting_weight: Tensor | None = None,
    importance_weight: Tensor | None = None,
    mask: Tensor | None = None,
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
        mask (Tensor, optional): ``[*M]``.

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
    scaled = _scale(
        advantage, temperature, top_k_fraction, restarting_weight, importance_weight, mask
    )
    log_mean = torch.log(scaled.mass.sum() + _TINY) - torch.log(scaled.total + _TINY)
    return temperature * (epsilon + log_mean + scaled.highest)


def vmpo_kl(
    advantage: Tensor,
    temperature: Tensor | float,
    top_k_fraction: float = 0.5,
    restarting_weight: Tensor | None = None,
    importance_weight: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""How far the weights lean away from those at an infinite temperature: the KL spent.

    .. math:: \mathrm{KL}(w \,\|\, p) = \sum_i w_i \log \frac{w_i}{p_i}, \qquad
        p_i = \frac{k_i \rho_i}{\sum_j k_j \rho_j}

    Without importance weights the slope of :func:`vmpo_temperature_loss` is ``epsilon`` minus
    this. What is bounded in `Song et al. (2019) <https://arxiv.org/abs/1909.12238>`_.

    Args:
        advantage (Tensor): ``[*M]``, unit of return.
        temperature (Tensor or float): ``[]``, positive, unit of return.
        top_k_fraction (float): as in :func:`vmpo_weights`, and so are the following.
        restarting_weight (Tensor, optional): ``[*M]``.
        importance_weight (Tensor, optional): ``[*M]``.
        mask (Tensor, optional): ``[*M]``.

    Returns:
        Tensor: ``[]``, nats; carries no gradient.

    Raises:
        ValueError: as :func:`vmpo_weights`.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.functional import vmpo_kl
        >>> vmpo_kl(torch.tensor([0.0, 1.0, 2.0, -1.0]), temperature=1.0)
        tensor(0.1109)
    """
    scaled = _scale(
        advantage, temperature, top_k_fraction, restarting_weight, importance_weight, mask
    )
    sum_mass, sum_prior = scaled.mass.sum() + _TINY, scaled.prior.sum() + _TINY
    weight = scaled.mass / sum_mass
    log_ratio = scaled.exponent - torch.log(sum_mass) + torch.log(sum_prior)
    return (weight * log_ratio.masked_fill(weight == 0, 0.0)).sum().detach()


class _Scaled(NamedTuple):
    exponent: Tensor  # [*M], r A / temperature below its highest
    prior: Tensor  # [*M], k times the importance weight
    mass: Tensor  # [*M], u without the factor exp(highest)
    highest: Tensor  # []
    total: Tensor  # [], the sum of k


def _scale(
    advantage: Tensor,
    temperature: Tensor | float,
    top_k_fraction: float,
    restarting_weight: Tensor | None,
    importance_weight: Tensor | None,
    mask: Tensor | None,
) -> _Scaled:
    if not 0 < top_k_fraction <= 1:
        raise ValueError(f"top_k_fraction must be in (0, 1], got {top_k_fraction}.")
    if not advantage.numel():
        raise ValueError(f"advantage must hold at least one step, got {tuple(advantage.shape)}.")
    # The dual prices the greediness of the E-step; it must not teach the critic.
    advantage = advantage.detach()
    restarting = torch.ones_like(advantage) if restarting_weight is None else restarting_weight
    importance = torch.ones_like(advantage) if importance_weight is None else importance_weight
    require_same_shape(
        advantage=advantage, restarting_weight=restarting, importance_weight=importance
    )
    scaled = restarting * advantage / temperature
    if mask is not None:
        require_same_shape(advantage=advantage, mask=mask)
        restarting = torch.where(mask, restarting, torch.zeros_like(restarting))
    if mask is not None or restarting_weight is not None:
        # What does not count is put at the least of what does: it must not be the highest, beside
        # which all others would vanish.
        counts = restarting != 0
        least = torch.where(counts, scaled.detach(), torch.inf).min()
        least = torch.where(least.isinf(), torch.zeros_like(least), least)  # none counts
        scaled = torch.where(counts, scaled, least)
    highest = scaled.max()
    kept = restarting
    if top_k_fraction < 1:
        valid = scaled.detach() - (1 - restarting) * _LEFT_OUT
        kept = restarting * (valid >= _least_of_best(valid, top_k_fraction, mask))
    exponent, prior = scaled - highest, kept * importance
    return _Scaled(exponent, prior, prior * torch.exp(exponent), highest, kept.sum())


def _least_of_best(value: Tensor, fraction: float, mask: Tensor | None) -> Tensor:
    """The least of the best values that are to be kept, a fraction of all."""
    if mask is None:
        number = int(fraction * value.numel())
        if number < 1:
            raise ValueError(
                f"top_k_fraction={fraction} leaves none of {value.numel()} steps; use a larger "
                "fraction or batch."
            )
        return value.flatten().topk(number).values[-1]
    # How many there are stands on the device: sorted, not read back.
    value = torch.where(mask, value, -torch.inf).flatten().sort(descending=True).values
    # In double precision, as a number of Python's is: 0.29 of 100 would else be one more. Apple's
    # GPUs have none.
    dtype = torch.float32 if mask.device.type == "mps" else torch.float64
    counted = (fraction * mask.sum(dtype=dtype)).long().clamp(min=1)
    return value.gather(0, (counted - 1).reshape(1))[0]
