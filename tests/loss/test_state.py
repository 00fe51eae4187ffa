"""Saving, loading, copying, moving and resetting a loss."""

from __future__ import annotations

import io
import sys
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from torchrl.objectives import SoftUpdate

from mpo_torchrl import MPOLoss
from tests.loss.builders import (
    DUALS,
    POLICIES,
    make_actor,
    make_batch,
    make_critic,
    make_loss,
    move_policy,
    parameter_groups,
    seeded,
    shared_encoder_loss,
    snapshot,
    total,
    trained_groups,
)


def trained(policy: str, **kwargs: Any) -> MPOLoss:
    """A loss in which everything has left its initial value."""
    loss = make_loss(policy, **kwargs)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    updater = SoftUpdate(loss, tau=0.3)
    for _ in range(3):
        optimizer.zero_grad()
        total(loss(make_batch(4))).backward()
        optimizer.step()
        updater.step()
    return loss


def assert_same_losses(found: MPOLoss, expected: MPOLoss, **kwargs: Any) -> None:
    batch = make_batch(4, **kwargs)
    losses, reference = seeded(found, batch.clone()), seeded(expected, batch.clone())
    for key in reference.keys():
        torch.testing.assert_close(losses[key], reference[key], rtol=0, atol=0, msg=key)


# -- state_dict ---------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_a_fresh_loss_takes_over_a_trained_one(policy: str) -> None:
    loss = trained(policy)
    loss.epsilon = 0.07
    fresh = make_loss(policy)
    fresh.load_state_dict(loss.state_dict(), strict=True)
    assert fresh.epsilon == 0.07
    assert_same_losses(fresh, loss)


def test_the_state_survives_a_file_read_without_running_code() -> None:
    loss, file = trained("gaussian"), io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    fresh = make_loss()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert_same_losses(fresh, loss)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_state_holds_networks_targets_duals_bounds_and_discount(policy: str) -> None:
    state = make_loss(policy).state_dict()
    prefixes = {key.split(".")[0] for key in state}
    networks = {f"{n}_network_params" for n in ("actor", "qvalue", "target_actor", "target_qvalue")}
    assert prefixes == networks | set(DUALS[policy]) | {"_value_estimator"}
    assert all(f"{dual}.{entry}" in state for dual in DUALS[policy] for entry in ("raw", "epsilon"))
    assert "_value_estimator.gamma" in state


def test_the_state_has_the_same_entries_before_and_after_a_call() -> None:
    loss = make_loss()
    before = set(loss.state_dict())
    total(loss(make_batch(4))).backward()
    assert set(loss.state_dict()) == before


@pytest.mark.parametrize("smaller", ["observation", "ensemble"])
def test_the_state_of_other_networks_is_refused_even_where_it_would_broadcast(smaller: str) -> None:
    size = {"observation_size": 1} if smaller == "observation" else {}
    critics = [make_critic(**size) for _ in range(1 if smaller == "ensemble" else 2)]
    other = MPOLoss(make_actor(**size), critics, num_qvalue_nets=len(critics))
    loss = make_loss()
    before = {name: p.detach().clone() for name, p in loss.named_parameters()}
    with pytest.raises(RuntimeError, match="size mismatch for .*_network_params"):
        loss.load_state_dict(other.state_dict())
    assert all((p == before[name]).all() for name, p in loss.named_parameters())


@pytest.mark.parametrize("entry", ["actor_network_params", "target_qvalue_network_params", "raw"])
def test_a_state_without_an_entry_or_with_one_more_is_refused(entry: str) -> None:
    loss, state = make_loss(), make_loss().state_dict()
    key = next(key for key in state if entry in key)
    less = {k: v for k, v in state.items() if k != key}
    more = {**state, f"{key}.more": torch.zeros(1)}
    before = {name: p.detach().clone() for name, p in loss.named_parameters()}
    for other, sentence in (
        (less, rf"1 entries are missing \['{key}'\]"),
        (more, "1 are of no use"),
    ):
        with pytest.raises(RuntimeError, match=f"not that of this loss: .*{sentence}"):
            loss.load_state_dict(other)
    assert all((p == before[name]).all() for name, p in loss.named_parameters())
    assert loss.load_state_dict(less, strict=False) == ([key], [])
    assert loss.load_state_dict(more, strict=False) == ([], [f"{key}.more"])
    taken = loss.state_dict()
    assert all((taken[k] == v).all() for k, v in state.items())


@pytest.mark.parametrize("num_critics", [1, 2])
def test_a_loss_is_loaded_as_part_of_a_greater_module(num_critics: int) -> None:
    loss, encoder = shared_encoder_loss(num_critics, True)
    other, _ = shared_encoder_loss(num_critics, True)
    for parameter in other.network_parameters():
        parameter.data += torch.randn_like(parameter)
    nn.ModuleDict({"loss": loss}).load_state_dict(nn.ModuleDict({"loss": other}).state_dict())
    assert_same_losses(loss, other)
    loss.qvalue_loss(make_batch(4))[0].backward()
    assert encoder.weight.grad.norm() > 0  # what is shared goes on being so


def test_a_greater_module_refuses_the_state_of_other_networks() -> None:
    size = {"observation_size": 1}
    other = MPOLoss(make_actor(**size), make_critic(**size))
    module = nn.ModuleDict({"loss": make_loss()})
    with pytest.raises(RuntimeError, match=r"size mismatch for loss\.actor_network_params"):
        module.load_state_dict(nn.ModuleDict({"loss": other}).state_dict())


# -- copies -------------------------------------------------------------------------------


@pytest.mark.parametrize("num_critics", [1, 2])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_copy_is_equal_and_independent(policy: str, num_critics: int) -> None:
    loss = make_loss(policy)
    if num_critics == 1:
        loss = MPOLoss(make_actor(policy), make_critic(), num_qvalue_nets=1)
    copy = deepcopy(loss)
    assert_same_losses(copy, loss)
    before = snapshot(
        loss.state_dict()[k] for k in loss.state_dict() if "raw" in k or "weight" in k
    )
    optimizer = torch.optim.SGD(copy.parameters(), lr=0.1)
    total(copy(make_batch(4))).backward()
    optimizer.step()
    SoftUpdate(copy, tau=0.5).step()
    after = [loss.state_dict()[k] for k in loss.state_dict() if "raw" in k or "weight" in k]
    for old, new in zip(before, after, strict=True):
        assert (old == new).all()
    assert all(p.grad is None for p in loss.parameters())
    assert seeded(copy, make_batch(4))["loss_actor"] != seeded(loss, make_batch(4))["loss_actor"]


@pytest.mark.parametrize("num_critics", [1, 2])
def test_a_state_may_be_taken_over_where_no_gradients_are_recorded(num_critics: int) -> None:
    loss, encoder = shared_encoder_loss(num_critics, True)
    with torch.no_grad():
        loss.load_state_dict(deepcopy(loss.state_dict()))
    loss.qvalue_loss(make_batch(4))[0].backward()
    assert encoder.weight.grad.norm() > 0


def test_a_copy_has_its_own_multipliers_in_every_part() -> None:
    copy = deepcopy(make_loss())
    copy.temperature, copy.alpha_mean = 5.0, 7.0
    losses = copy(make_batch(4))
    assert losses["temperature"] == 5.0 and losses["alpha_mean"] == 7.0
    losses["loss_temperature"].backward()
    assert copy.temperature.raw.grad != 0


# -- dtype and device ---------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_a_loss_can_change_its_precision(policy: str) -> None:
    loss = move_policy(make_loss(policy))
    batch = make_batch(4)
    loss.to(torch.float64)
    for parameter in loss.parameters():
        assert parameter.dtype == torch.float64
    assert all(b.dtype != torch.float32 for _, b in loss.named_buffers())
    losses = loss(make_batch(4, dtype=torch.float64))
    assert all(value.dtype == torch.float64 for value in losses.values())
    total(losses).backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float64 for p in loss.parameters())
    assert total(loss.to(torch.float32)(batch)).dtype == torch.float32


def test_targets_still_follow_after_a_change_of_precision() -> None:
    loss = make_loss().to(torch.float64)
    updater = SoftUpdate(loss, tau=0.5)
    move_policy(loss)
    before = loss.target_actor_network_params.clone()
    updater.step()
    assert (before != loss.target_actor_network_params).any()


def test_without_delay_targets_still_follow_after_a_change_of_precision() -> None:
    loss = make_loss(delay_actor=False, delay_qvalue=False)
    loss(make_batch(4))
    loss.to(torch.float64)
    move_policy(loss)
    losses = loss(make_batch(4, dtype=torch.float64))
    assert losses["kl_mean"] == 0 and losses["loss_qvalue"].dtype == torch.float64


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("policy", POLICIES)
def test_a_loss_runs_on_an_accelerator(policy: str) -> None:
    loss = make_loss(policy).to("cuda")
    losses = loss(make_batch(4).to("cuda"))
    assert all(value.device.type == "cuda" for value in losses.values())
    assert trained_groups(loss, total(losses)) == {"actor", "qvalue", *DUALS[policy]}


# -- reset --------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_reset_draws_everything_anew_and_the_duals_as_they_were(policy: str) -> None:
    inits = dict(zip(DUALS[policy], (3.0, 0.5, 2.0, 7.0), strict=False))
    loss = trained(policy, **{f"init_{name}": value for name, value in inits.items()})
    before = {name: p.detach().clone() for name, p in loss.named_parameters()}
    loss.reset_parameters_recursive()
    for name, parameter in loss.named_parameters():
        assert (parameter != before[name]).any(), name
    losses = loss(make_batch(4))
    for name, value in inits.items():
        torch.testing.assert_close(losses[name], torch.tensor(value))


def test_after_a_reset_targets_equal_their_networks() -> None:
    loss = trained("gaussian")
    loss.reset_parameters_recursive()
    for network in ("actor_network", "qvalue_network"):
        online = getattr(loss, f"{network}_params").data
        target = getattr(loss, f"target_{network}_params").data
        assert (online == target).all()


def test_a_reset_policy_begins_as_alike_in_every_state_as_a_new_one() -> None:
    loss = MPOLoss(make_actor(observation_size=30), make_critic(observation_size=30))
    loss.actor_network_params.data.apply_(lambda parameter: parameter.fill_(1.0))
    loss.reset_parameters_recursive()
    last = loss.actor_network_params.data["module", "0", "module", "0", "3"]
    assert 0 < last["weight"].abs().max() <= 0.01 * 8**-0.5
    assert (last["bias"] == 0).all()


@pytest.mark.parametrize("as_list", [True, False], ids=["list", "expanded"])
def test_a_reset_draws_the_members_of_an_ensemble_as_one_network_would_be(as_list: bool) -> None:
    critic = make_critic(observation_size=30)
    critics = [critic, make_critic(observation_size=30)] if as_list else critic
    loss = MPOLoss(make_actor(observation_size=30), critics)
    weight = loss.qvalue_network_params["module", "body", "0", "weight"]  # [2, 8, 32]
    weight.data.fill_(100.0)
    loss.reset_parameters_recursive()
    limit = 32**-0.5  # of nn.Linear
    for member in weight:
        assert 0.9 * limit < member.abs().max() <= limit
    assert (weight[0] != weight[1]).all()


@pytest.mark.parametrize("separate_losses", [True, False])
def test_after_a_reset_targets_equal_networks_that_share_an_encoder(separate_losses: bool) -> None:
    loss, encoder = shared_encoder_loss(2, True, separate_losses=separate_losses)
    before = encoder.weight.detach().clone()
    loss.reset_parameters_recursive()
    assert (encoder.weight != before).all()
    for network in ("actor_network", "qvalue_network"):
        online = getattr(loss, f"{network}_params").data
        assert (online == getattr(loss, f"target_{network}_params").data).all()


def test_a_reset_loss_trains_the_user_s_single_critic() -> None:
    critic = make_critic()
    loss = MPOLoss(make_actor(), critic, num_qvalue_nets=1)
    before = critic.module.body[0].weight.detach().clone()
    loss.reset_parameters_recursive()
    assert (critic.module.body[0].weight != before).all()
    assert {*map(id, parameter_groups(loss)["qvalue"])} == {*map(id, critic.parameters())}


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
