from __future__ import annotations

import inspect

import pytest
import torch

from mpo_torchrl import VMPOLoss
from mpo_torchrl.trainer import MPOConfig, RewardScale, VMPOConfig


def test_rewards_are_divided_by_the_stddev_of_all_discounted_returns_so_far():
    reward = torch.randn(2, 30, 1)
    done = torch.rand(2, 30, 1) < 0.2
    returns, running = [], torch.zeros(2)
    for step in range(30):
        running = 0.9 * running + reward[:, step, 0]
        returns.append(running)
        running = running * ~done[:, step, 0]
    scale = RewardScale(0.9)
    scale(reward[:, :10], done[:, :10])
    scale(reward[:, 10:20], done[:, 10:20])
    found = scale(reward[:, 20:], done[:, 20:])
    expected = reward[:, 20:] / torch.stack(returns).std(correction=0)
    torch.testing.assert_close(found, expected)


def test_a_loaded_scale_goes_on_in_the_middle_of_episodes():
    reward, done = torch.randn(2, 20, 1), torch.zeros(2, 20, 1, dtype=torch.bool)
    whole, part = RewardScale(0.9), RewardScale(0.9)
    whole(reward[:, :10], done[:, :10])
    part.load_state_dict(whole.state_dict())
    args = reward[:, 10:], done[:, 10:]
    torch.testing.assert_close(part(*args), whole(*args), rtol=0, atol=0)


def test_rewards_that_never_change_stay_finite():
    scale = RewardScale(0.0)
    found = scale(torch.zeros(1, 5, 1), torch.zeros(1, 5, 1, dtype=torch.bool))
    assert found.eq(0).all()


@pytest.mark.parametrize(
    "name",
    [
        "top_k_fraction",
        "epsilon",
        "epsilon_mean",
        "epsilon_stddev",
        "epsilon_policy",
        "init_temperature",
        "init_alpha_mean",
        "init_alpha_stddev",
        "init_alpha_policy",
    ],
)
def test_a_run_and_the_loss_have_the_same_default(name):
    parameter = inspect.signature(VMPOLoss).parameters[name]
    assert getattr(VMPOConfig(), name) == parameter.default


def test_what_both_kinds_of_run_have_is_described_in_one_place():
    mpo, vmpo = MPOConfig.__dataclass_fields__, VMPOConfig.__dataclass_fields__
    own = {"total_timesteps", "policy", "steps_per_batch", "batch_size"}
    for name in mpo.keys() & vmpo.keys() - own:
        assert vmpo[name].metadata["meaning"] == mpo[name].metadata["meaning"]
        assert vmpo[name].metadata["default"] == getattr(VMPOConfig(), name)


if __name__ == "__main__":
    pytest.main([__file__])
