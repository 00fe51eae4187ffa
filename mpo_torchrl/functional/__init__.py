"""The mathematics of MPO as pure functions of tensors.

No TensorDict, no module, no state. ``*B`` are batch dimensions (one or more, time
included), ``N`` is the number of actions drawn per state, ``A`` the size of an action.
All divergences are in nats.
"""

from __future__ import annotations

from mpo_torchrl.functional.dual import alpha_loss, kl_penalty, temperature_loss
from mpo_torchrl.functional.e_step import (
    effective_sample_size,
    nonparametric_kl,
    nonparametric_weights,
    out_of_bounds_cost,
)
from mpo_torchrl.functional.m_step import decoupled_gaussian_kl, decoupled_gaussian_nll

__all__ = [
    "alpha_loss",
    "decoupled_gaussian_kl",
    "decoupled_gaussian_nll",
    "effective_sample_size",
    "kl_penalty",
    "nonparametric_kl",
    "nonparametric_weights",
    "out_of_bounds_cost",
    "temperature_loss",
]
