"""One critic or several: whose parameters, drawn how, run how."""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from tensordict.nn import NormalParamExtractor, TensorDictModule, TensorDictSequential
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torchrl.modules import ProbabilisticActor, TanhNormal
from torchrl.objectives import HardUpdate
from torchrl.objectives.utils import TargetNetUpdater

from mpo_torchrl import MPOLoss
from mpo_torchrl.critic import ScalarCritic
from mpo_torchrl.targets import FusedSoftUpdate, PeriodicUpdate
from tests.loss.builders import (
    SPEC,
    A,
    O,
    make_actor,
    make_batch,
    make_critic,
    make_loss,
    parameter_groups,
    seeded,
    shared_encoder_loss,
    total,
    trained_groups,
)


def weights_of(loss: MPOLoss) -> torch.Tensor:
    return loss.qvalue_network_params["module", "body", "0", "weight"]


# -- whose parameters ---------------------------------------------------------------------


def test_a_list_of_critics_keeps_the_initialisation_of_each() -> None:
    critics = [make_critic() for _ in range(3)]
    for index, critic in enumerate(critics):
        nn.init.constant_(critic.module.body[0].weight, float(index))
    loss = MPOLoss(make_actor(), critics)
    assert loss.num_qvalue_nets == 3
    for index in range(3):
        assert (weights_of(loss)[index] == index).all()
        assert (
            loss.target_qvalue_network_params["module", "body", "0", "weight"][index] == index
        ).all()


def test_one_critic_is_the_user_s_own() -> None:
    critic = make_critic()
    loss = MPOLoss(make_actor(), critic, num_qvalue_nets=1)
    assert {*map(id, parameter_groups(loss)["qvalue"])} == {*map(id, critic.parameters())}
    before = weights_of(loss).clone()
    with torch.no_grad():
        critic.module.body[0].weight.add_(1.0)
    torch.testing.assert_close(weights_of(loss), before + 1.0)


def test_a_list_of_one_critic_is_the_user_s_own() -> None:
    critic = make_critic()
    loss = MPOLoss(make_actor(), [critic])
    assert loss.num_qvalue_nets == 1
    assert {*map(id, parameter_groups(loss)["qvalue"])} == {*map(id, critic.parameters())}


def test_the_actor_is_the_user_s_own() -> None:
    actor = make_actor()
    loss = MPOLoss(actor, make_critic())
    assert {*map(id, parameter_groups(loss)["actor"])} == {*map(id, actor.parameters())}


def test_an_expanded_critic_is_drawn_anew_between_its_extremes() -> None:
    critic = make_critic()
    nn.init.orthogonal_(critic.module.body[0].weight)
    low, high = critic.module.body[0].weight.aminmax()
    weight = weights_of(MPOLoss(make_actor(), critic, num_qvalue_nets=2))
    assert weight.shape == (2, *critic.module.body[0].weight.shape)
    assert (weight >= low).all() and (weight <= high).all()
    assert not (weight[0] == critic.module.body[0].weight).any()
    assert not (weight[0] == weight[1]).any()


def test_a_tuple_of_critics_is_as_good_as_a_list() -> None:
    assert MPOLoss(make_actor(), tuple(make_critic() for _ in range(3))).num_qvalue_nets == 3


def test_two_critics_are_the_default() -> None:
    assert MPOLoss(make_actor(), make_critic()).num_qvalue_nets == 2


def test_a_scalar_critic_brings_its_networks_loss_and_key() -> None:
    networks = [make_critic(out_key="q") for _ in range(2)]
    critic = ScalarCritic(networks, loss_function="l1", value_key="q")
    loss = MPOLoss(make_actor(), critic, reduction="none")
    assert loss.critic is critic and loss.tensor_keys.state_action_value == "q"
    batch = make_batch(4)
    _, readings = loss.qvalue_loss(batch)
    assert (loss(batch)["loss_qvalue"] <= 2 * readings["td_error"] + 1).all()
    assert loss.num_qvalue_nets == 2 and len(weights_of(loss)) == 2


@pytest.mark.parametrize("num_critics", [1, 2, 3])
def test_the_critic_s_loss_sums_over_the_ensemble(num_critics: int) -> None:
    critics = [make_critic() for _ in range(num_critics)]
    batch = make_batch(5)
    batch["next", "terminated"][:] = True
    reward = batch["next", "reward"]
    with torch.no_grad():
        values = torch.stack([c(batch.copy())["state_action_value"] for c in critics])
    loss = MPOLoss(make_actor(), critics, num_qvalue_nets=num_critics)(batch)["loss_qvalue"]
    torch.testing.assert_close(loss, (values - reward).square().mean((1, 2)).sum())


@pytest.mark.parametrize("critic", ["online", "target"])
def test_the_e_step_scores_with_the_smallest_value_of_the_chosen_critics(critic: str) -> None:
    loss, batch = make_loss(e_step_critic=critic), make_batch(4)
    with torch.no_grad():
        for parameter in loss.qvalue_network_params.parameters():
            parameter.add_(torch.randn_like(parameter))
    improved = loss.e_step(batch)["e_step"]
    states = batch.select("observation").unsqueeze(1).expand(4, 5).clone()
    states["action"] = improved["action"]
    prefix = "target_" if critic == "target" else ""
    params = getattr(loss, f"{prefix}qvalue_network_params")
    values = loss.critic.predict(states, params)
    torch.testing.assert_close(improved["state_action_value"], values.amin(0))
    assert (values[0] != values[1]).all()


# -- run how ------------------------------------------------------------------------------


def general_loss(policy: str = "gaussian", dropout: float = 0.0, **kwargs: Any) -> MPOLoss:
    """Its critics carry a hook: they are called as modules, and may run under vmap."""
    critics = [make_critic(dropout=dropout) for _ in range(2)]
    critics[0].register_forward_hook(lambda module, args, output: None)
    return MPOLoss(make_actor(policy), critics, num_action_samples=5, **kwargs)


def on_accelerator(loss: MPOLoss) -> str | None:
    """How vmap would treat random numbers there; ``None`` if the critics are looped over."""
    return loss._vmap_mode(torch.empty(1, device="meta"))


@pytest.mark.parametrize("policy", ["gaussian", "beta"])
def test_vmap_and_loop_agree(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loss, batch = general_loss(policy), make_batch(4, 3)
    looped = seeded(loss, batch.clone())
    mode = on_accelerator(loss)
    assert mode == "error"
    monkeypatch.setattr(loss, "_vmap_mode", lambda like: mode)
    mapped = seeded(loss, batch.clone())
    parameters = list(loss.parameters())
    for key in looped.keys():
        torch.testing.assert_close(mapped[key], looped[key], msg=key)
    torch.testing.assert_close(
        torch.autograd.grad(total(mapped), parameters),
        torch.autograd.grad(total(looped), parameters),
    )


def test_deactivated_vmap_is_used_on_no_device() -> None:
    assert on_accelerator(general_loss()) == "error"
    assert on_accelerator(general_loss(deactivate_vmap=True)) is None


def test_on_a_cpu_the_critics_are_looped_over() -> None:
    assert general_loss()._vmap_mode(torch.empty(1)) is None


@pytest.mark.parametrize("mode", [None, "different"], ids=["loop", "vmap"])
def test_equal_critics_with_dropout_differ_in_what_they_drop(mode: str | None) -> None:
    loss = general_loss(dropout=0.5)
    assert loss.vmap_randomness == "different"
    params = loss.qvalue_network_params
    params.data.apply_(lambda p: p.copy_(p[:1].expand_as(p)))
    values = loss.critic.predict(make_batch(6), params, vmap_randomness=mode)
    assert (values[0] != values[1]).any()
    total(loss(make_batch(6))).backward()


def test_the_randomness_of_vmap_can_be_chosen() -> None:
    loss = general_loss(dropout=0.5)
    assert on_accelerator(loss) == "different"
    loss.set_vmap_randomness("same")
    assert on_accelerator(loss) == "same"
    with pytest.raises(ValueError, match="Wrong vmap randomness"):
        loss.set_vmap_randomness("sometimes")


# -- shared with the actor ----------------------------------------------------------------


SHARED = pytest.mark.parametrize(
    ("num_critics", "as_list"),
    [(1, False), (2, False), (1, True), (2, True)],
    ids=["one", "expanded", "list of one", "list"],
)


@SHARED
def test_separate_losses_leave_a_shared_encoder_to_the_actor(
    num_critics: int, as_list: bool
) -> None:
    loss, encoder = shared_encoder_loss(num_critics, as_list, separate_losses=True)
    losses = loss(make_batch(4))
    for key, trains in (("loss_qvalue", False), ("loss_actor", True)):
        (gradient,) = torch.autograd.grad(
            losses[key], encoder.weight, retain_graph=True, allow_unused=True
        )
        assert (gradient is not None and bool(gradient.any())) == trains, key
    assert trained_groups(loss, losses["loss_qvalue"]) == {"qvalue"}


@pytest.mark.parametrize(("num_critics", "as_list"), [(1, False), (1, True), (2, True)])
def test_joint_losses_both_train_a_shared_encoder(num_critics: int, as_list: bool) -> None:
    loss, encoder = shared_encoder_loss(num_critics, as_list)
    losses = loss(make_batch(4))
    for key in ("loss_qvalue", "loss_actor"):
        assert torch.autograd.grad(losses[key], encoder.weight, retain_graph=True)[0].any(), key


@SHARED
@pytest.mark.parametrize("delay_actor", [True, False])
@pytest.mark.parametrize(
    "make_updater",
    [
        lambda loss: HardUpdate(loss, value_network_update_interval=0),
        lambda loss: PeriodicUpdate(loss, period=1),
        lambda loss: FusedSoftUpdate(loss, tau=1.0),
    ],
    ids=["HardUpdate", "PeriodicUpdate", "FusedSoftUpdate"],
)
@pytest.mark.filterwarnings("ignore:Found an eps value < 0.5")
def test_a_shared_encoder_and_its_targets_follow_the_actor(
    num_critics: int,
    as_list: bool,
    make_updater: Callable[[MPOLoss], TargetNetUpdater],
    delay_actor: bool,
) -> None:
    loss, encoder = shared_encoder_loss(
        num_critics, as_list, separate_losses=True, delay_actor=delay_actor
    )
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    updater = make_updater(loss)
    before = encoder.weight.detach().clone()
    total(loss(make_batch(4))).backward()
    optimizer.step()
    updater.step()
    assert (encoder.weight != before).any()
    params, targets = loss.qvalue_network_params, loss.target_qvalue_network_params
    for key in params.keys(True, True):
        assert (params[key] == targets[key]).all(), key
    assert (params["module", "0", "module", "weight"] == encoder.weight).all()


def cast(loss: MPOLoss) -> MPOLoss:
    return loss.to(torch.float64)


def reloaded(loss: MPOLoss) -> MPOLoss:
    loss.load_state_dict(deepcopy(loss.state_dict()))
    return loss


@torch.no_grad()
def reloaded_without_gradients(loss: MPOLoss) -> MPOLoss:
    return reloaded(loss)


@pytest.mark.parametrize("first", [True, False])
def test_an_encoder_that_one_critic_shares_leaves_the_other_its_own(first: bool) -> None:
    encoders = [nn.Linear(O, 4), nn.Linear(O, 4)]

    def on(encoder: nn.Linear, head: TensorDictModule) -> TensorDictSequential:
        return TensorDictSequential(TensorDictModule(encoder, ["observation"], ["features"]), head)

    head = nn.Sequential(nn.Linear(4, 2 * A), NormalParamExtractor())
    actor = ProbabilisticActor(
        on(encoders[0], TensorDictModule(head, ["features"], ["loc", "scale"])),
        in_keys=["loc", "scale"],
        distribution_class=TanhNormal,
        spec=SPEC,
    )
    if not first:
        encoders.reverse()
    kind = {"observation_size": 4, "in_key": "features"}
    loss = MPOLoss(actor, [on(encoder, make_critic(**kind)) for encoder in encoders])
    found = loss.qvalue_network_params["module", "0", "module", "weight"]
    torch.testing.assert_close(found, torch.stack([encoder.weight for encoder in encoders]))


# Jointly, an expanded critic is drawn anew and shares nothing.
@pytest.mark.parametrize(
    ("num_critics", "as_list", "separate_losses"),
    [(1, False, True), (2, False, True), (2, True, True), (1, False, False), (2, True, False)],
)
@pytest.mark.parametrize(
    "change", [deepcopy, cast, reloaded, reloaded_without_gradients], ids=lambda f: f.__name__
)
def test_what_is_shared_stays_shared(
    change: Callable[[MPOLoss], MPOLoss], num_critics: int, as_list: bool, separate_losses: bool
) -> None:
    loss, _ = shared_encoder_loss(num_critics, as_list, separate_losses=separate_losses)
    loss(make_batch(4))
    loss = change(loss)
    own = loss.actor_network_params["module", "0", "module", "0", "module", "weight"]
    borrowed = loss.qvalue_network_params["module", "0", "module", "weight"]
    own.data.add_(1.0)
    assert (borrowed == own).all()
    assert {*map(id, parameter_groups(loss)["actor"])} >= {id(own)}
    loss_qvalue = loss(make_batch(4, dtype=own.dtype))["loss_qvalue"]
    (gradient,) = torch.autograd.grad(loss_qvalue, own, allow_unused=True)
    assert (gradient is None) == separate_losses


@SHARED
def test_a_loss_that_shares_an_encoder_takes_over_a_trained_one(
    num_critics: int, as_list: bool
) -> None:
    trained, encoder = shared_encoder_loss(num_critics, as_list, separate_losses=True)
    fresh, other = shared_encoder_loss(num_critics, as_list, separate_losses=True)
    fresh.load_state_dict(trained.state_dict())
    assert (other.weight == encoder.weight).all()
    batch = make_batch(4)
    assert (seeded(fresh, batch.clone()) == seeded(trained, batch.clone())).all()


@pytest.mark.parametrize("separate_losses", [False, True])
@pytest.mark.parametrize(("num_critics", "as_list"), [(2, True), (1, False)])
def test_a_shared_encoder_given_new_data_is_the_one_the_critics_use(
    num_critics: int, as_list: bool, separate_losses: bool
) -> None:
    new, found = torch.randn(4, O), []
    for replace in (False, True):
        torch.manual_seed(0)
        loss, encoder = shared_encoder_loss(num_critics, as_list, separate_losses=separate_losses)
        batch = seeded(make_batch, 8)
        loss(batch)
        if replace:
            encoder.weight.data = new.clone()
        else:
            encoder.weight.data.copy_(new)
        found.append(seeded(loss, batch)["loss_qvalue"])
    torch.testing.assert_close(*found)


def test_critics_whose_weights_are_parametrized_may_be_a_list() -> None:
    critics = [make_critic(), make_critic()]
    for critic in critics:
        weight_norm(critic.module.body[0])
    loss = MPOLoss(make_actor(), critics)
    total(loss(make_batch(4))).backward()
    assert all(bool(p.grad.any()) for p in parameter_groups(loss)["qvalue"])


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
