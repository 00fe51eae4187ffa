from __future__ import annotations

import inspect

import pytest

from mpo_torchrl import MPOConfig, MPOLoss

SHORT = {"n_action_samples": "num_action_samples", "n_bootstrap_samples": "num_bootstrap_samples"}
SHARED = [
    "n_action_samples",
    "n_bootstrap_samples",
    "e_step_critic",
    "epsilon",
    "epsilon_mean",
    "epsilon_stddev",
    "epsilon_penalty",
    "init_temperature",
    "init_alpha_mean",
    "init_alpha_stddev",
]


@pytest.mark.parametrize("name", SHARED)
def test_a_run_and_the_loss_have_the_same_default(name: str) -> None:
    parameter = inspect.signature(MPOLoss).parameters[SHORT.get(name, name)]
    assert getattr(MPOConfig(), name) == parameter.default


if __name__ == "__main__":
    pytest.main([__file__])
