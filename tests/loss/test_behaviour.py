"""MPOLoss on a data set: part 2 is a BehaviourEStep."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from mpo_torchrl import MPOLoss
from mpo_torchrl.critic import CategoricalCritic, QuantileCritic
from mpo_torchrl.dual import ExactTemperature, FixedTemperature, Temperature
from mpo_torchrl.e_step import BehaviourEStep
from mpo_torchrl.modules import make_critics
from tests.loss.builders import (
    SPEC,
    O,
    loss_entries,
    make_actor,
    make_batch,
    make_loss,
    move_policy,
    seeded,
    total,
    trained_groups,
)

POLICIES = pytest.mark.parametrize("policy", ["gaussian", "tanh_normal"])
SHAPES = pytest.mark.parametrize("shape", [(), (5,), (2, 3)], ids=str)


def offline_loss(policy: str = "gaussian", temperature=None, **settings) -> MPOLoss:
    e_step = BehaviourEStep(temperature or Temperature(0.5, 1.0))
    return make_loss(policy, e_step=e_step, **settings)


def gradients(loss: MPOLoss, value: torch.Tensor) -> list[torch.Tensor]:
    parameters = list(loss.actor_network_params.parameters())
    return list(torch.autograd.grad(value, parameters))


@POLICIES
@SHAPES
def test_with_equal_weights_the_policy_clones_the_behaviour(policy: str, shape: tuple) -> None:
    # The reference is the policy itself: its KL is zero and the decoupled fit has the slope of the
    # plain likelihood, of which no part is due to the squashing.
    loss = offline_loss(policy, FixedTemperature(float("inf")), delay_actor=False)
    batch = make_batch(*shape)
    batch["action"] *= 0.9  # off the bounds, where the action is moved
    found = gradients(loss, loss.actor_loss(batch)[0])
    with loss.actor_network_params.to_module(loss.actor_network):
        log_prob = loss.actor_network.get_dist(batch.copy()).log_prob(batch["action"])
    expected = gradients(loss, -log_prob.mean())
    assert any(gradient.any() for gradient in expected)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, atol=1e-4, rtol=1e-3)


@POLICIES
def test_a_critic_that_finds_all_actions_alike_makes_a_clone(policy: str) -> None:
    loss = offline_loss(policy)
    for parameter in loss.qvalue_network_params.parameters():
        parameter.data.zero_()
    assert_close(loss.e_step(make_batch(6))["e_step", "weight"], torch.ones(6, 1))


@POLICIES
def test_every_loss_teaches_what_it_should_and_nothing_else(policy: str) -> None:
    loss = move_policy(offline_loss(policy))
    taught = {
        name: trained_groups(loss, v) for name, v in loss_entries(loss(make_batch(8))).items()
    }
    assert taught == {
        "loss_qvalue": {"qvalue"},
        "loss_temperature": {"temperature"},
        "loss_actor": {"actor"},
        "loss_alpha": {"alpha_mean", "alpha_stddev"},
    }


@POLICIES
@SHAPES
@pytest.mark.parametrize(
    "temperature", [Temperature(0.5, 1.0), ExactTemperature(0.5), FixedTemperature(1.0)]
)
def test_it_trains_with_every_temperature_and_batch_shape(policy, shape, temperature) -> None:
    loss = offline_loss(policy, temperature)
    losses = loss(make_batch(*shape))
    assert set(losses.keys()) == set(loss.out_keys) and "penalty_temperature" not in losses
    total(losses).backward()
    assert all(p.grad.isfinite().all() for p in loss.network_parameters())


def test_batches_of_two_dimensions_are_batches_of_one() -> None:
    loss, batch = offline_loss(), make_batch(2, 3)
    batch["e_step"] = batch.empty().set("state_action_value", torch.randn(2, 3, 5))
    flat = batch.reshape(6)
    weight = loss.e_step(batch)["e_step", "weight"]
    assert_close(weight.reshape(6, 1), loss.e_step(flat)["e_step", "weight"])


@pytest.mark.parametrize("critic", ["categorical", "quantile"])
def test_critics_of_distributions_judge_by_their_means(critic: str) -> None:
    make = {
        "categorical": lambda: CategoricalCritic(
            make_critics(O, SPEC, num_outputs=11), torch.linspace(-5, 5, 11)
        ),
        "quantile": lambda: QuantileCritic(make_critics(O, SPEC, num_outputs=8), num_quantiles=8),
    }
    e_step = BehaviourEStep(Temperature(0.5, 1.0))
    loss = MPOLoss(make_actor(), make[critic](), e_step=e_step)
    batch = make_batch(4)
    total(loss(batch)).backward()
    assert loss.e_step(batch)["e_step", "state_action_value"].shape == (4, 5)


def test_masked_transitions_train_nothing() -> None:
    loss, batch = offline_loss("gaussian", ExactTemperature(0.3)), make_batch(2, 6)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[:, 4:] = False
    values = torch.randn(2, 6, 5)
    batch["e_step"] = batch.empty().set("state_action_value", values)
    padded = batch.copy()
    padded[("collector", "mask")] = mask
    padded["action"] = batch["action"].masked_fill(~mask.unsqueeze(-1), float("nan"))
    losses, expected = loss(padded), loss(batch[:, :4].clone())
    names = ["loss_temperature", "loss_actor", "loss_alpha", "kl_e_step", "effective_sample_size"]
    for name in names:  # the critic's target has draws of its own
        assert_close(losses[name], expected[name])


def test_weights_of_zero_leave_the_policy_alone() -> None:
    loss, batch = offline_loss(), make_batch(4)
    batch = loss.e_step(batch)
    batch["e_step", "weight"].zero_()
    assert not any(g.any() for g in gradients(loss, loss.actor_loss(batch)[0]))


def test_the_next_states_actions_are_not_in_the_batch() -> None:
    with pytest.raises(ValueError, match="must be 'online' or 'target' with BehaviourEStep"):
        offline_loss(e_step_critic="next")


@POLICIES
def test_data_may_be_of_another_precision_than_the_policy(policy: str) -> None:
    critics = make_critics(O, SPEC, num_cells=(8,))
    loss = MPOLoss(make_actor(policy), critics, e_step=BehaviourEStep(Temperature(0.5, 1.0)))
    batch = make_batch(5)
    expected = seeded(loss, batch)
    batch["action"] = batch["action"].double()
    torch.testing.assert_close(seeded(loss, batch), expected)


@pytest.mark.parametrize(
    "temperature", [Temperature(0.5, 1.0), ExactTemperature(0.5)], ids=["learned", "exact"]
)
def test_a_batch_that_is_masked_whole_is_finite(temperature) -> None:
    loss, batch = offline_loss(temperature=temperature), make_batch(5)
    batch["collector", "mask"] = torch.zeros(5, dtype=torch.bool)
    losses = loss(batch)
    total(losses).backward()
    assert all(bool(value.isfinite().all()) for value in losses.values())
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in loss.parameters())


if __name__ == "__main__":
    pytest.main([__file__])
