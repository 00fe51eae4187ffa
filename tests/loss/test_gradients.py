"""Each loss trains what it owns and nothing else."""

from __future__ import annotations

import sys

import pytest
import torch

from tests.loss.builders import (
    DUALS,
    POLICIES,
    loss_entries,
    make_batch,
    make_loss,
    move_policy,
    parameter_groups,
    total,
    trained_groups,
)


def owners(policy: str) -> dict[str, set[str]]:
    duals = DUALS[policy]
    return {
        "loss_qvalue": {"qvalue"},
        "loss_actor": {"actor"},
        "loss_temperature": {name for name in duals if "temperature" in name},
        "loss_alpha": {name for name in duals if "alpha" in name},
    }


@pytest.mark.parametrize("e_step_critic", ["online", "target", "next"])
@pytest.mark.parametrize("delay_qvalue", [True, False])
@pytest.mark.parametrize("delay_actor", [True, False])
@pytest.mark.parametrize("policy", POLICIES)
def test_each_loss_trains_its_own_parameters_alone(
    policy: str, delay_actor: bool, delay_qvalue: bool, e_step_critic: str
) -> None:
    loss = make_loss(
        policy,
        delay_actor=delay_actor,
        delay_qvalue=delay_qvalue,
        e_step_critic=e_step_critic,
        num_bootstrap_samples=2,
    )
    losses = loss_entries(move_policy(loss)(make_batch(4)))
    assert {key: trained_groups(loss, value) for key, value in losses.items()} == owners(policy)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_parameter_of_the_loss_receives_a_gradient(policy: str) -> None:
    loss = move_policy(make_loss(policy))
    total(loss(make_batch(6))).backward()
    without = [n for n, p in loss.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("policy", POLICIES)
def test_targets_receive_no_gradient(policy: str) -> None:
    loss = make_loss(policy)
    total(loss(make_batch(4))).backward()
    targets = [loss.target_actor_network_params, loss.target_qvalue_network_params]
    for target in targets:
        assert all(not leaf.requires_grad for leaf in target.values(True, True))


@pytest.mark.parametrize("policy", POLICIES)
def test_diagnostics_are_detached_scalars_that_no_trainer_would_sum(policy: str) -> None:
    loss = make_loss(policy)
    losses = loss(make_batch(4, 2))
    assert set(loss_entries(losses)) == set(owners(policy))
    for key in set(losses.keys()) - set(owners(policy)):
        assert losses[key].shape == () and not losses[key].requires_grad, key


@pytest.mark.parametrize("policy", POLICIES)
def test_a_reading_that_is_logged_changes_no_gradient(policy: str) -> None:
    loss = make_loss(policy)
    losses = loss(make_batch(4))
    readings = [v for k, v in losses.items() if not k.startswith("loss")]
    assert not sum(readings).requires_grad


@pytest.mark.parametrize("init_temperature", [0.05, 1.0, 20.0])
def test_slope_of_the_temperature_is_its_bound_minus_the_kl_spent(init_temperature: float) -> None:
    loss = make_loss("tanh_normal", init_temperature=init_temperature).double()
    losses = loss(make_batch(6, dtype=torch.float64))
    (slope,) = torch.autograd.grad(losses["loss_temperature"], loss.temperature.raw)
    per_raw = torch.sigmoid(loss.temperature.raw.detach())  # of softplus
    torch.testing.assert_close(
        slope / per_raw, loss.epsilon - losses["kl_e_step"], rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("policy", ["gaussian", "tanh_normal"])
def test_slope_of_each_multiplier_is_its_bound_minus_its_kl(policy: str) -> None:
    loss = move_policy(make_loss(policy)).double()
    batch = make_batch(6, dtype=torch.float64)
    value, readings = loss.alpha_loss(batch)
    for name, bound in (("mean", loss.epsilon_mean), ("stddev", loss.epsilon_stddev)):
        raw = loss.get_submodule(f"alpha_{name}").raw
        (slope,) = torch.autograd.grad(value, raw, retain_graph=True)
        expected = bound - readings[f"kl_{name}"].mean(0)  # [A]
        assert (readings[f"kl_{name}"] > 0).all()
        torch.testing.assert_close(slope / torch.sigmoid(raw.detach()), expected)


def test_differences_between_states_leave_the_temperature_alone() -> None:
    loss = make_loss("tanh_normal", init_temperature=0.3).double()
    batch = loss.e_step(make_batch(6, dtype=torch.float64))
    spread = 1000 * torch.randn(6, 1, dtype=torch.float64)
    shifted = batch.clone()
    shifted["e_step", "state_action_value"] += spread

    slopes = [
        torch.autograd.grad(loss.temperature_loss(td)[0], loss.temperature.raw)[0]
        for td in (batch, shifted)
    ]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        loss.temperature_loss(shifted)[0] - loss.temperature_loss(batch)[0], spread.mean()
    )


def test_the_policy_feels_its_distance_from_the_target() -> None:
    loss = move_policy(make_loss("gaussian", init_alpha_mean=1.0, init_alpha_stddev=2.0))
    batch = loss.e_step(make_batch(6))
    cheap, readings = loss.actor_loss(batch)
    loss.alpha_mean, loss.alpha_stddev = 1001.0, 502.0
    price = 1000 * readings["kl_mean"].sum(-1) + 500 * readings["kl_stddev"].sum(-1)
    assert price.mean() > 1.0
    torch.testing.assert_close(loss.actor_loss(batch)[0] - cheap, price.mean())


def test_a_policy_at_its_target_pays_nothing() -> None:
    readings = make_loss("gaussian")(make_batch(6))
    assert readings["kl_mean"] == 0 and readings["kl_stddev"] == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_without_a_target_the_kl_starts_at_zero_and_still_holds_the_policy(policy: str) -> None:
    loss = make_loss(policy, delay_actor=False)
    losses = move_policy(loss)(make_batch(6))
    for name in ("mean", "stddev", "policy"):
        if f"kl_{name}" in losses.keys():
            torch.testing.assert_close(losses[f"kl_{name}"], torch.zeros(()), rtol=0, atol=1e-6)
    assert trained_groups(loss, losses["loss_actor"]) == {"actor"}


def test_the_network_parameters_and_the_dual_parameters_are_all_parameters() -> None:
    loss = make_loss("gaussian")
    networks, duals = loss.network_parameters(), loss.dual_parameters()
    assert {*map(id, networks)} | {*map(id, duals)} == {*map(id, loss.parameters())}
    assert not {*map(id, networks)} & {*map(id, duals)}
    groups = parameter_groups(loss)
    assert {*map(id, duals)} == {id(p) for name in DUALS["gaussian"] for p in groups[name]}
    networks[0].requires_grad_(False)  # frozen by the user
    assert {*map(id, loss.network_parameters())} == {*map(id, networks[1:])}


@pytest.mark.parametrize("policy", POLICIES)
def test_neither_draws_nor_values_nor_weights_learn(policy: str) -> None:
    loss = make_loss(policy)
    batch = loss.e_step(make_batch(4))
    leaves = {
        key: batch["e_step", key].clone().requires_grad_()
        for key in ("action", "state_action_value", "weight")
    }
    batch["e_step"].update(leaves)
    total(loss(batch)).backward()
    assert [key for key, leaf in leaves.items() if leaf.grad is not None] == []


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
