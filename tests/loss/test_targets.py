"""Functional parameters, target parameters and what moves them."""

from __future__ import annotations

import sys
import warnings

import pytest
import torch
from torch import nn
from torchrl.modules import ValueOperator
from torchrl.objectives import HardUpdate, SoftUpdate

from mpo_torchrl import MPOLoss
from tests.loss.builders import (
    A,
    ActionValue,
    O,
    make_actor,
    make_batch,
    make_critic,
    make_loss,
    move_policy,
    seeded,
    snapshot,
    total,
)

NETWORKS = ("actor_network", "qvalue_network")


def pairs(loss: MPOLoss, network: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each trained parameter beside its target."""
    online, target = getattr(loss, f"{network}_params"), getattr(loss, f"target_{network}_params")
    return [(p, target[key]) for key, p in online.items(True, True) if p.requires_grad]


@torch.no_grad()
def move_networks(loss: MPOLoss) -> None:
    for parameter in loss.network_parameters():
        parameter.add_(torch.randn_like(parameter))


@pytest.mark.parametrize("network", NETWORKS)
def test_targets_start_equal_and_apart(network: str) -> None:
    for online, target in pairs(make_loss(), network):
        assert (online == target).all() and online.data_ptr() != target.data_ptr()


@pytest.mark.parametrize(("delay", "network"), [("actor", NETWORKS[0]), ("qvalue", NETWORKS[1])])
def test_without_delay_the_target_is_the_network_itself(delay: str, network: str) -> None:
    loss = make_loss(**{f"delay_{delay}": False})
    move_networks(loss)
    for online, target in pairs(loss, network):
        assert (online == target).all() and not target.requires_grad
        assert online.data_ptr() == target.data_ptr()


def test_targets_are_no_parameters() -> None:
    loss = make_loss()
    targets = [*loss.target_actor_network_params.values(True, True)]
    targets += loss.target_qvalue_network_params.values(True, True)
    assert not {*map(id, targets)} & {*map(id, loss.parameters())}


@pytest.mark.parametrize("tau", [0.005, 0.3])
def test_soft_update_moves_every_target_a_fraction_of_the_way(tau: float) -> None:
    loss = make_loss()
    updater = SoftUpdate(loss, tau=tau)
    before = {n: snapshot([t for _, t in pairs(loss, n)]) for n in NETWORKS}
    move_networks(loss)
    updater.step()
    for network in NETWORKS:
        for (online, target), old in zip(pairs(loss, network), before[network], strict=True):
            torch.testing.assert_close(target, old.lerp(online.detach(), tau))


@pytest.mark.parametrize("interval", [1, 3])
def test_hard_update_copies_at_every_call_after_interval_calls(interval: int) -> None:
    # For Acme's copy every 100 updates ask for 99.
    loss = make_loss()
    updater = HardUpdate(loss, value_network_update_interval=interval)
    copied = []
    for call in range(1, 3 * (interval + 1) + 1):
        move_networks(loss)
        updater.step()
        if all((o == t).all() for network in NETWORKS for o, t in pairs(loss, network)):
            copied.append(call)
    assert copied == [interval + 1, 2 * (interval + 1), 3 * (interval + 1)]


def test_an_updater_needs_a_target() -> None:
    loss = make_loss(delay_actor=False, delay_qvalue=False)
    with pytest.raises(RuntimeError, match="Did not find any target parameters"):
        SoftUpdate(loss, tau=0.1)


@pytest.mark.parametrize("kept", ["actor", "qvalue"])
def test_an_updater_moves_the_one_target_there_is(kept: str) -> None:
    other = {"actor": "qvalue", "qvalue": "actor"}[kept]
    loss = make_loss(**{f"delay_{other}": False})
    updater = SoftUpdate(loss, tau=0.4)
    move_networks(loss)
    updater.step()
    assert all((o != t).any() for o, t in pairs(loss, f"{kept}_network"))


def test_a_missing_updater_is_pointed_out_and_an_attached_one_is_not() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss = make_loss()
        with pytest.raises(UserWarning, match="No target network updater"):
            loss(make_batch(4))
        loss = make_loss()
        SoftUpdate(loss, tau=0.4)
        loss(make_batch(4))
        make_loss(delay_actor=False, delay_qvalue=False)(make_batch(4))


def test_forward_moves_no_parameter_and_no_target() -> None:
    loss = make_loss()
    before = {k: v.clone() for k, v in loss.state_dict().items() if isinstance(v, torch.Tensor)}
    total(loss(make_batch(4))).backward()
    for key, value in loss.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert (value == before[key]).all(), key


# -- who acts -----------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["gaussian", "tanh_normal", "beta", "truncated_normal"])
@pytest.mark.parametrize("delay_actor", [True, False])
def test_the_e_step_draws_from_the_reference_policy(policy: str, delay_actor: bool) -> None:
    loss, batch = make_loss(policy, delay_actor=delay_actor), make_batch(4)
    before = seeded(loss.e_step, batch.clone())["e_step", "action"]
    move_policy(loss)
    after = seeded(loss.e_step, batch.clone())["e_step", "action"]
    assert (before == after).all() == delay_actor


@pytest.mark.parametrize("delay_actor", [True, False])
def test_the_bootstrap_draws_from_the_reference_policy(delay_actor: bool) -> None:
    loss, batch = make_loss(delay_actor=delay_actor), make_batch(4)
    before = seeded(loss.qvalue_loss, batch.clone())[0]
    move_policy(loss, 1.0)
    assert (before == seeded(loss.qvalue_loss, batch.clone())[0]).item() == delay_actor


@pytest.mark.parametrize("delay_qvalue", [True, False])
def test_the_bootstrap_is_valued_by_the_target_critics(delay_qvalue: bool) -> None:
    loss, batch = make_loss(delay_qvalue=delay_qvalue), make_batch(4)
    batch["next", "terminated"].zero_()
    loss.make_value_estimator(gamma=1.0)
    _, before = seeded(loss.qvalue_loss, batch.clone())
    with torch.no_grad():  # all online critics say one more, of this state and of the next
        loss.qvalue_network_params["module", "body", "2", "bias"].add_(1.0)
    _, after = seeded(loss.qvalue_loss, batch.clone())
    torch.testing.assert_close(after["q_value"], before["q_value"] + 1.0)
    unchanged = torch.allclose(after["td_error"], before["td_error"], atol=1e-5)
    assert unchanged == (not delay_qvalue)


# -- what the actor and the critics are run on --------------------------------------------


def count_rows(module: nn.Module) -> list[int]:
    rows: list[int] = []
    module.register_forward_hook(lambda m, args, out: rows.append(out[..., 0].numel()))
    return rows


@pytest.mark.parametrize("policy", ["gaussian", "beta"])
def test_the_actor_runs_once_per_state_not_once_per_sample(policy: str) -> None:
    actor = make_actor(policy)
    rows = count_rows(actor[0].module[0])
    loss = MPOLoss(actor, make_critic(), num_action_samples=50, num_bootstrap_samples=10)
    loss(make_batch(4))
    assert sum(rows) <= 3 * 4  # target at s and s', online at s


def test_each_critic_scores_each_draw_once() -> None:
    critics = [make_critic() for _ in range(2)]
    rows = count_rows(critics[0].module.body)
    loss = MPOLoss(make_actor(), critics, num_action_samples=50, num_bootstrap_samples=10)
    loss(make_batch(4))
    assert sum(rows) == 2 * (4 + 4 * 50 + 4 * 10)


# -- buffers ------------------------------------------------------------------------------


def test_updaters_pass_over_buffers() -> None:
    # Running statistics in a network go stale in its target: keep them in the environment.
    class Normalised(ActionValue):
        def __init__(self) -> None:
            super().__init__(O + A)
            self.register_buffer("mean", torch.zeros(O))

        def forward(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
            return super().forward(observation - self.mean, action)

    critic = ValueOperator(Normalised(), in_keys=["observation", "action"])
    loss = MPOLoss(make_actor(), critic, num_qvalue_nets=1)
    updater = SoftUpdate(loss, tau=0.5)
    loss.qvalue_network_params["module", "mean"].fill_(1.0)
    updater.step()
    assert (loss.target_qvalue_network_params["module", "mean"] == 0).all()


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
