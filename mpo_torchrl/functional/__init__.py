"""The mathematics of MPO as pure functions of tensors.

No TensorDict, no module, no state. ``*B`` are batch dimensions (one or more, time
included), ``N`` is the number of actions drawn per state, ``A`` the size of an action or the
number of discrete actions.
All divergences are in nats.
"""

from __future__ import annotations

from mpo_torchrl.functional.behaviour import (
    behaviour_weights,
    sampled_advantage,
)
from mpo_torchrl.functional.critic import (
    categorical_projection,
    n_step_return,
    quantile_regression_loss,
    retrace_return,
    signed_hyperbolic,
    signed_parabolic,
    two_hot_decode,
    two_hot_encode,
)
from mpo_torchrl.functional.distribution import (
    categorical_cross_entropy,
    mixture_nll,
    mixture_sample,
)
from mpo_torchrl.functional.dual import (
    alpha_loss,
    categorical_temperature_loss,
    kl_penalty,
    optimal_temperature,
    temperature_loss,
)
from mpo_torchrl.functional.e_step import (
    categorical_improvement,
    effective_sample_size,
    nonparametric_kl,
    nonparametric_weights,
    out_of_bounds_cost,
)
from mpo_torchrl.functional.m_step import (
    categorical_kl,
    categorical_nll,
    decoupled_gaussian_kl,
    decoupled_gaussian_nll,
)
from mpo_torchrl.functional.vmpo import (
    vmpo_kl,
    vmpo_temperature_loss,
    vmpo_weights,
)

__all__ = [
    "alpha_loss",
    "behaviour_weights",
    "categorical_cross_entropy",
    "categorical_improvement",
    "categorical_kl",
    "categorical_nll",
    "categorical_projection",
    "categorical_temperature_loss",
    "decoupled_gaussian_kl",
    "decoupled_gaussian_nll",
    "effective_sample_size",
    "kl_penalty",
    "mixture_nll",
    "mixture_sample",
    "n_step_return",
    "nonparametric_kl",
    "nonparametric_weights",
    "optimal_temperature",
    "out_of_bounds_cost",
    "quantile_regression_loss",
    "retrace_return",
    "sampled_advantage",
    "signed_hyperbolic",
    "signed_parabolic",
    "temperature_loss",
    "two_hot_decode",
    "two_hot_encode",
    "vmpo_kl",
    "vmpo_temperature_loss",
    "vmpo_weights",
]
