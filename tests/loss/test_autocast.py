"""Under autocast hidden layers are rounded, and what a loss rests on is not."""

from __future__ import annotations

import sys
from contextlib import nullcontext

import pytest
import torch
from tensordict import TensorDict

from mpo_torchrl import MPOLoss
from mpo_torchrl.critic import CategoricalCritic
from mpo_torchrl.functional import decoupled_gaussian_nll
from mpo_torchrl.modules import make_critics
from tests.loss.builders import SPEC, A, O, make_actor, make_batch, seeded, total


def autocast() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


def test_autocast_leaves_values_their_differences() -> None:
    torch.manual_seed(0)
    critics = make_critics(O, SPEC, num_cells=(8,))
    for critic in critics:
        critic.module.body[-1].bias.data.fill_(1000.0)
    loss, batch = MPOLoss(make_actor(), critics, scoring_dtype=torch.float32), make_batch(6)
    expected = seeded(loss.e_step, batch.copy())["e_step", "state_action_value"]
    with autocast():
        found = seeded(loss.e_step, batch.copy())["e_step", "state_action_value"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found - 1000, expected - 1000, rtol=0.05, atol=0.02)


def test_the_precision_chosen_for_scoring_holds_under_autocast() -> None:
    critics = make_critics(O, SPEC, num_cells=(8,))
    loss, batch = MPOLoss(make_actor(), critics, scoring_dtype=torch.float32), make_batch(6)
    batch["e_step"] = TensorDict(action=2 * torch.rand(6, 20, A) - 1, batch_size=6)
    expected = loss.e_step(batch.copy())["e_step", "state_action_value"]
    with autocast():
        found = loss.e_step(batch.copy())["e_step", "state_action_value"]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", ["scalar", "categorical"])
def test_under_autocast_gradients_are_nearly_those_of_full_precision(kind: str) -> None:
    gradients = []
    for context in (nullcontext(), autocast()):
        torch.manual_seed(0)
        critic = make_critics(
            O, SPEC, num_cells=(8,), num_outputs=5 if kind == "categorical" else 1
        )
        if kind == "categorical":
            critic = CategoricalCritic(critic, torch.linspace(-3.0, 3.0, 5))
        loss = MPOLoss(make_actor(), critic, init_temperature=10.0)
        batch = make_batch(64)
        with context:
            losses = seeded(loss, batch)
        total(losses).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in loss.network_parameters()]))
    full, cast = gradients
    assert (full - cast).norm() < 0.05 * full.norm()


def test_an_actor_far_from_zero_learns_under_autocast_as_without() -> None:
    torch.manual_seed(0)
    weight, gradients = torch.softmax(torch.randn(32, 20), -1), []
    loc, scale = torch.full((32, 1), 5.0), torch.full((32, 1), 0.05)
    action = loc[:, None] + scale[:, None] * torch.randn(32, 20, 1)
    for context in (nullcontext(), autocast()):
        online = loc.clone().requires_grad_()
        with context:
            decoupled_gaussian_nll(action, weight, loc, scale, online, scale).sum().backward()
        gradients.append(online.grad)
    torch.testing.assert_close(*gradients)


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
