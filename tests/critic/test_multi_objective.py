"""The critic of several rewards: its loss, its priority and its target by hand."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torch.testing import assert_close
from torchrl.data import Bounded
from torchrl.objectives.value import TD0Estimator

from mpo_torchrl.critic import MultiObjectiveCritic
from mpo_torchrl.modules import make_critics


def make_critic() -> MultiObjectiveCritic:
    networks = make_critics(3, Bounded(-1.0, 1.0, (1,)), num_cells=(4,), num_outputs=2)
    return MultiObjectiveCritic(networks, num_objectives=2)


def test_the_loss_sums_over_ensemble_and_objectives_and_trains_no_target() -> None:
    prediction = torch.tensor([[[0.0, 1.0]], [[2.0, 4.0]]], requires_grad=True)  # [C, B, K]
    target = torch.tensor([[1.0, 1.0]], requires_grad=True)  # [B, K]
    loss = make_critic().loss(prediction, target)
    assert_close(loss, torch.tensor([1.0 + 0.0 + 1.0 + 9.0]))
    loss.sum().backward()
    assert target.grad is None
    assert_close(prediction.grad, 2 * (prediction - target).detach())


def test_the_priority_is_the_largest_error_of_all_objectives() -> None:
    prediction = torch.tensor([[[0.0, 0.0]], [[1.0, 2.0]]])  # [C, B, K]
    assert_close(
        make_critic().td_error(prediction, torch.tensor([[0.5, 5.0]])), torch.tensor([5.0])
    )


def test_the_target_averages_the_least_values_of_the_next_actions() -> None:
    prediction = torch.tensor([[[[1.0, 8.0], [3.0, 4.0]]], [[[2.0, 6.0], [5.0, 0.0]]]])
    flag = torch.zeros(1, 1, dtype=torch.bool)
    following = TensorDict(reward=torch.tensor([[10.0, 20.0]]), done=flag, terminated=flag)
    batch = TensorDict(next=following, batch_size=1)
    estimator = TD0Estimator(gamma=0.5, value_network=None)
    # Least of the ensemble [[1, 6], [3, 0]] for the M = 2 actions, on average [2, 3].
    found = make_critic().target(batch, prediction, estimator)
    assert_close(found, torch.tensor([[11.0, 21.5]]))


if __name__ == "__main__":
    pytest.main([__file__])
