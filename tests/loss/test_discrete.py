"""DiscreteMPOLoss: its numbers, its gradients, the kinds of actions, its place in TorchRL."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torch import distributions as d
from torchrl.data import Categorical, OneHot
from torchrl.modules import (
    MaskedCategorical,
    MaskedOneHotCategorical,
    OneHotCategorical,
    OneHotOrdinal,
    ProbabilisticActor,
)
from torchrl.objectives import DiscreteSACLoss, SoftUpdate, ValueEstimators

from mpo_torchrl import DiscreteMPOLoss
from mpo_torchrl.modules import make_actor, make_discrete_actor, make_discrete_critics
from tests.loss.builders import SPEC, seeded, total

O, A = 3, 4  # noqa: E741
SPECS = {"one-hot": OneHot(A), "whole numbers": Categorical(A)}
KINDS = pytest.mark.parametrize("kind", SPECS)
SHAPES = pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 1), (1,)], ids=str)


def make_loss(kind: str = "one-hot", **settings: Any) -> DiscreteMPOLoss:
    torch.manual_seed(0)
    spec = SPECS[kind]
    actor = make_discrete_actor(O, spec, num_cells=(8,))
    with torch.no_grad():  # the policy shall differ between states
        actor[0].module[0][-1].weight.mul_(100.0)
    loss = DiscreteMPOLoss(actor, make_discrete_critics(O, spec, num_cells=(8,)), **settings)
    for parameter in loss.network_parameters():  # all shall differ from their targets
        parameter.data += 0.1 * torch.randn_like(parameter)
    return loss.make_value_estimator(gamma=0.9)


def make_batch(*shape: int, kind: str = "one-hot", seed: int = 1) -> TensorDict:
    torch.manual_seed(seed)
    return TensorDict(
        observation=torch.randn(*shape, O),
        action=SPECS[kind].rand(shape),
        next=TensorDict(
            observation=torch.randn(*shape, O),
            reward=torch.randn(*shape, 1),
            done=torch.rand(*shape, 1) < 0.3,
            terminated=torch.rand(*shape, 1) < 0.2,
            batch_size=shape,
        ),
        batch_size=shape,
    )


class WithFeatures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(O, 8), nn.Linear(8, A)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(observation).tanh()
        return features, self.head(features)


def test_an_actor_may_write_more_than_its_logits() -> None:
    actor = ProbabilisticActor(
        TensorDictModule(WithFeatures(), ["observation"], ["features", "logits"]),
        in_keys=["logits"],
        distribution_class=OneHotCategorical,
        spec=OneHot(A),
    )
    batch = make_batch(5)
    with torch.no_grad():
        expected = actor.get_dist(batch.copy()).entropy().mean()
    loss = DiscreteMPOLoss(actor, make_discrete_critics(O, OneHot(A), num_cells=(8,)))
    torch.testing.assert_close(loss(batch)["entropy"], expected)


def logits_of(loss: DiscreteMPOLoss, states: TensorDict, params: Any) -> Tensor:
    with params.to_module(loss.actor_network):
        return loss.actor_network.get_dist(states.copy()).logits.log_softmax(-1)


def values_of(loss: DiscreteMPOLoss, states: TensorDict, params: Any) -> Tensor:
    values = []
    for member in params.unbind(0):
        with member.to_module(loss.qvalue_network):
            values.append(loss.qvalue_network(states.copy())["action_value"])
    return torch.stack(values)


@KINDS
@SHAPES
@pytest.mark.parametrize("e_step_critic", ["online", "target"])
def test_the_losses_are_those_of_the_formula(kind: str, shape: tuple, e_step_critic: Any) -> None:
    loss = make_loss(kind, e_step_critic=e_step_critic)
    batch = make_batch(*shape, kind=kind)
    found = loss(batch.copy())

    following = batch["next"]
    next_prob = logits_of(loss, following, loss.target_actor_network_params).exp()
    next_values = values_of(loss, following, loss.target_qvalue_network_params).amin(0)
    live = 1 - following["terminated"].float().squeeze(-1)
    target = following["reward"].squeeze(-1) + 0.9 * live * (next_prob * next_values).sum(-1)
    values = values_of(loss, batch, loss.qvalue_network_params)
    one_hot = batch["action"] if kind == "one-hot" else nn.functional.one_hot(batch["action"], A)
    taken = (values * one_hot).sum(-1)
    torch.testing.assert_close(found["loss_qvalue"], (taken - target).square().sum(0).mean())

    reference = logits_of(loss, batch, loss.target_actor_network_params)
    online = logits_of(loss, batch, loss.actor_network_params)
    target_values = values_of(loss, batch, loss.target_qvalue_network_params)
    best = {"online": values, "target": target_values}[e_step_critic].amin(0)
    improved = (reference + best / 1.0).log_softmax(-1)
    dual = 0.1 + torch.logsumexp(reference + best, -1)
    torch.testing.assert_close(found["loss_temperature"], dual.mean())
    kl = (reference.exp() * (reference - online)).sum(-1)
    actor = -(improved.exp() * online).sum(-1) + kl
    torch.testing.assert_close(found["loss_actor"], actor.mean())
    torch.testing.assert_close(found["loss_alpha"], (0.01 - kl).mean())
    torch.testing.assert_close(found["kl_policy"], kl.mean())
    spent = (improved.exp() * (improved - reference)).sum(-1)
    torch.testing.assert_close(found["kl_e_step"], spent.mean())
    size = 1 / improved.exp().square().sum(-1)
    torch.testing.assert_close(found["effective_sample_size"], size.mean())
    torch.testing.assert_close(found["q_value"], taken.mean().detach())


GRADIENTS = {
    "loss_qvalue": {"qvalue"},
    "loss_temperature": {"temperature"},
    "loss_actor": {"actor"},
    "loss_alpha": {"alpha_policy"},
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_each_loss_trains_its_own_parameters_and_no_others(name: str) -> None:
    loss = make_loss()
    loss(make_batch(5))[name].backward()
    groups = {
        "actor": loss.actor_network_params,
        "qvalue": loss.qvalue_network_params,
        "target_actor": loss.target_actor_network_params,
        "target_qvalue": loss.target_qvalue_network_params,
        **loss.multipliers(),
    }
    trained = {
        group
        for group, module in groups.items()
        if any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    }
    assert trained == GRADIENTS[name]


def test_both_ways_to_write_an_action_give_the_same_numbers() -> None:
    batch = make_batch(5)
    numbers = batch.copy()
    numbers["action"] = batch["action"].long().argmax(-1)
    torch.testing.assert_close(
        dict(make_loss("one-hot")(batch).items()),
        dict(make_loss("whole numbers")(numbers).items()),
    )
    numbers["action"] = numbers["action"].unsqueeze(-1)
    torch.testing.assert_close(
        make_loss("whole numbers")(numbers)["loss_qvalue"], make_loss()(batch)["loss_qvalue"]
    )


def masked_loss(distribution: type, **settings: Any) -> DiscreteMPOLoss:
    torch.manual_seed(0)
    actor = ProbabilisticActor(
        TensorDictModule(nn.Linear(O, A), ["observation"], ["logits"]),
        in_keys={"logits": "logits", "mask": "action_mask"},
        out_keys=["action"],
        distribution_class=distribution,
    )
    critics = [TensorDictModule(nn.Linear(O, A), ["observation"], ["action_value"])] * 1
    return DiscreteMPOLoss(actor, critics, num_qvalue_nets=1, **settings)


@pytest.mark.parametrize("distribution", [MaskedOneHotCategorical, MaskedCategorical])
def test_a_masked_action_has_no_weight_no_gradient_and_no_say(distribution: type) -> None:
    one_hot = distribution is MaskedOneHotCategorical
    loss = masked_loss(distribution)
    batch = make_batch(6, kind="one-hot" if one_hot else "whole numbers")
    mask = torch.tensor([True, True, False, True]).expand(6, A)
    batch["action"] = batch["action"] * mask if one_hot else batch["action"] % 2
    if one_hot:
        batch["action"][:] = nn.functional.one_hot(torch.zeros(6, dtype=torch.long), A).bool()
    batch["action_mask"] = batch["next", "action_mask"] = mask
    assert "action_mask" in loss.in_keys and ("next", "action_mask") in loss.in_keys

    weight = loss.e_step(batch.copy())["e_step", "weight"]
    assert (weight[:, 2] == 0).all() and (weight[:, :2] > 0).all()
    losses = seeded(loss, batch.copy())
    total(losses).backward()
    weight_gradient = loss.actor_network_params["module", "0", "module", "weight"].grad
    assert weight_gradient.isfinite().all() and (weight_gradient[2] == 0).all()

    loss.target_qvalue_network_params.data["module", "bias"][..., 2] = 1e6
    loss.qvalue_network_params.data["module", "bias"][..., 2] = 1e6
    torch.testing.assert_close(dict(seeded(loss, batch.copy())), dict(losses))


@pytest.mark.parametrize("estimator", [ValueEstimators.TD0, ValueEstimators.TDLambda])
@pytest.mark.parametrize("flags", [("done", "terminated"), ("done",)], ids=["both", "done"])
@pytest.mark.parametrize("distribution", [MaskedOneHotCategorical, MaskedCategorical])
def test_the_end_of_a_game_may_leave_no_action(
    distribution: type, flags: tuple, estimator: ValueEstimators
) -> None:
    loss = masked_loss(distribution).make_value_estimator(estimator)
    one_hot = distribution is MaskedOneHotCategorical
    batch = make_batch(2, 3, kind="one-hot" if one_hot else "whole numbers")
    ended = torch.tensor([False, True, False]).expand(2, 3).unsqueeze(-1)
    for flag in ("done", "terminated"):
        batch["next"].pop(flag)
        if flag in flags:
            batch["next", flag] = ended.clone()
    allowed = torch.ones(2, 3, A, dtype=torch.bool)
    batch["action_mask"] = batch["next", "action_mask"] = allowed
    expected = loss(batch.copy())
    batch["next", "action_mask"] = allowed & ~ended
    torch.testing.assert_close(dict(loss(batch).items()), dict(expected.items()))


def test_a_pipeline_of_discrete_sac_takes_it_with_its_loss_keys_changed() -> None:
    spec = OneHot(A)
    actor = ProbabilisticActor(
        TensorDictModule(nn.Linear(O, A), ["observation"], ["logits"]),
        in_keys=["logits"],
        out_keys=["action"],
        spec=spec,
        distribution_class=OneHotCategorical,
    )
    qvalue = TensorDictModule(nn.Linear(O, A), ["observation"], ["action_value"])
    batch = make_batch(5)
    DiscreteSACLoss(actor, qvalue, action_space="one-hot", num_actions=A)(batch.copy())
    loss = DiscreteMPOLoss(actor, qvalue)
    updater = SoftUpdate(loss, tau=0.1)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    before = {name: p.clone() for name, p in loss.named_parameters()}
    for _ in range(2):
        total(loss(batch)).backward()
        optimizer.step()
        optimizer.zero_grad()
        updater.step()
    assert [name for name, p in loss.named_parameters() if (p == before[name]).all()] == []
    assert batch["td_error"].shape == (5,)


def test_keys_can_be_nested_and_renamed() -> None:
    spec = SPECS["one-hot"]
    settings: dict[str, Any] = {"num_cells": (8,), "in_key": ("agent", "obs")}
    loss = DiscreteMPOLoss(
        make_discrete_actor(O, spec, out_key=("agent", "act"), **settings),
        make_discrete_critics(O, spec, **settings),
    )
    loss.set_keys(reward=("agent", "r"), priority=("agent", "p"))
    plain = make_batch(5)
    batch = TensorDict(batch_size=[5])
    batch["agent", "obs"], batch["agent", "act"] = plain["observation"], plain["action"]
    batch["next", "agent", "obs"] = plain["next", "observation"]
    batch["next", "agent", "r"] = plain["next", "reward"]
    batch["next", "done"], batch["next", "terminated"] = (
        plain["next", "done"],
        plain["next", "terminated"],
    )
    assert set(loss.in_keys) == set(batch.keys(True, True))
    assert total(loss(batch)).isfinite() and ("agent", "p") in batch.keys(True)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_reductions_are_of_the_same_numbers(reduction: str) -> None:
    mean = seeded(make_loss(), make_batch(2, 3))
    other = seeded(make_loss(reduction=reduction), make_batch(2, 3))
    for key in GRADIENTS:
        torch.testing.assert_close(other[key].sum() / 6, mean[key])
    assert reduction == "sum" or other["loss_actor"].shape == (2, 3)


@pytest.mark.parametrize("distribution", [MaskedOneHotCategorical, MaskedCategorical])
def test_padding_that_allows_no_action_leaves_every_gradient_finite(distribution: type) -> None:
    loss = masked_loss(distribution)
    one_hot = distribution is MaskedOneHotCategorical
    batch = make_batch(6, kind="one-hot" if one_hot else "whole numbers")
    allowed = torch.ones(6, A, dtype=torch.bool)
    allowed[4:] = False
    batch["action_mask"] = batch["next", "action_mask"] = allowed
    batch["collector", "mask"] = allowed[:, :1]
    total(loss(batch)).backward()
    for name, parameter in loss.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_masked_states_do_not_count() -> None:
    loss, batch = make_loss(), make_batch(4)
    kept = torch.tensor([True, False, True, True])
    expected = loss(batch[kept])
    batch["observation"][~kept] = torch.nan
    batch["collector", "mask"] = kept.unsqueeze(-1)
    torch.testing.assert_close(dict(loss(batch).items()), dict(expected.items()))


@pytest.mark.parametrize("estimator", [ValueEstimators.TD0, ValueEstimators.TDLambda])
def test_value_estimators_of_torchrl_make_the_target(estimator: ValueEstimators) -> None:
    loss = make_loss().make_value_estimator(estimator, gamma=0.5)
    assert total(loss(make_batch(2, 6))).isfinite()


def test_it_can_be_copied_saved_loaded_moved_and_reset() -> None:
    loss, batch = make_loss(), make_batch(5)
    expected = seeded(loss, batch.copy())
    copied, loaded = deepcopy(loss), make_loss()
    loaded.reset_parameters_recursive()
    assert seeded(loaded, batch.copy())["loss_actor"] != expected["loss_actor"]
    loaded.load_state_dict(loss.state_dict())
    for other in (copied, loaded):
        assert (seeded(other, batch.copy()) == expected).all()
    double = loss.double()(batch.apply(lambda x: x.double() if x.is_floating_point() else x))
    torch.testing.assert_close(double["loss_actor"].float(), expected["loss_actor"])


def test_keywords_can_be_dispatched() -> None:
    loss, batch = make_loss(), make_batch(5)
    loss.select_out_keys("loss_actor", "loss_qvalue")
    flat = {"_".join(k) if isinstance(k, tuple) else k: batch[k] for k in loss.in_keys}
    loss_actor, loss_qvalue = loss(**flat)
    losses = make_loss()(batch)
    torch.testing.assert_close(loss_actor, losses["loss_actor"])
    torch.testing.assert_close(loss_qvalue, losses["loss_qvalue"])


def test_the_compiled_loss_is_one_graph_with_the_same_numbers() -> None:
    loss, batch = make_loss(), make_batch(5)
    expected = loss(batch.copy())
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(dict(compiled(batch.copy()).items()), dict(expected.items()))


def test_a_hooked_actor_gives_the_same_numbers() -> None:
    loss, batch = make_loss(), make_batch(5)
    expected = loss(batch.copy())
    calls: list[object] = []
    loss.actor_network[0].register_forward_hook(lambda *_: calls.append(None))
    torch.testing.assert_close(dict(loss(batch).items()), dict(expected.items()))
    assert calls


def test_a_hooked_actor_leaves_the_batch_as_it_was_but_for_its_priority() -> None:
    loss, batch = make_loss(), make_batch(5)
    before = batch.clone()
    loss.actor_network[0].register_forward_hook(lambda *_: None)
    loss(batch)
    assert set(batch.keys(True)) == {*before.keys(True), "td_error"}


def test_the_policy_stays_within_its_bound_however_long_it_is_fitted() -> None:
    loss, batch = make_loss(epsilon_policy=0.02, epsilon=1.0), make_batch(50)
    batch = loss.e_step(batch)
    optimizer = torch.optim.Adam(
        [
            {"params": loss.network_parameters(), "lr": 1e-2},
            {"params": loss.dual_parameters(), "lr": 5e-2},
        ]
    )
    for _ in range(400):
        losses = loss(batch)
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
    assert 0.2 * 0.02 < losses["kl_policy"] < 1.5 * 0.02


def test_one_hot_actions_of_another_number_are_refused() -> None:
    batch = make_batch(5)
    batch["action"] = batch["action"][:, :-1]
    with pytest.raises(ValueError, match=rf"must be \[\*B, {A}\], one-hot.* shape \[5, {A - 1}\]"):
        make_loss()(batch)


def test_a_continuous_policy_is_refused() -> None:
    critics = make_discrete_critics(O, SPECS["one-hot"])
    with pytest.raises(ValueError, match=r"policy over discrete actions.*use MPOLoss"):
        DiscreteMPOLoss(make_actor(O, SPEC), critics)


def test_a_policy_of_separate_switches_is_refused() -> None:
    actor = ProbabilisticActor(
        TensorDictModule(nn.Linear(O, A), ["observation"], ["logits"]),
        in_keys=["logits"],
        distribution_class=d.Bernoulli,
    )
    with pytest.raises(ValueError, match=r"policy over discrete actions.*got Bernoulli"):
        DiscreteMPOLoss(actor, make_discrete_critics(O, SPECS["one-hot"]))


def test_a_critic_of_another_number_of_actions_is_refused() -> None:
    actor = make_discrete_actor(O, OneHot(A), num_cells=(8,))
    loss = DiscreteMPOLoss(actor, make_discrete_critics(O, OneHot(3), num_cells=(8,)))
    with pytest.raises(ValueError, match="values 3 actions and the policy has 4"):
        loss(make_batch(5))


def test_a_critic_of_another_batch_is_refused() -> None:
    class Summed(nn.Linear):
        def forward(self, features: Tensor) -> Tensor:
            return super().forward(features).sum(0)

    critic = TensorDictModule(Summed(O, A), ["observation"], ["action_value"])
    actor = make_discrete_actor(O, OneHot(A), num_cells=(8,))
    with pytest.raises(ValueError, match=r"'action_value' as \[\*B, K\] = \[5, K\], got \[4\]"):
        DiscreteMPOLoss(actor, [critic])(make_batch(5))


@pytest.mark.parametrize(
    ("kind", "wrong"), [("one-hot", "whole numbers"), ("whole numbers", "one-hot")]
)
def test_actions_written_another_way_are_refused(kind: str, wrong: str) -> None:
    with pytest.raises(ValueError, match="the batch's actions must be"):
        make_loss(kind)(make_batch(5, kind=wrong))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 0.0}, "epsilon is a bound"),
        ({"epsilon_policy": -1.0}, "epsilon_policy is a bound"),
        ({"e_step_critic": "next"}, "e_step_critic must be one of"),
        ({"num_qvalue_nets": 3}, "num_qvalue_nets=3 does not fit"),
        ({"init_temperature": 0.0}, "must be positive"),
        ({"loss_function": "l3"}, "loss_function must be"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_impossible_argument_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_loss(**settings)


def test_bounds_and_multipliers_can_be_assigned() -> None:
    loss = make_loss()
    loss.epsilon, loss.epsilon_policy, loss.alpha_policy = 0.5, 0.2, 3.0
    losses = loss(make_batch(5))
    torch.testing.assert_close(losses["alpha_policy"], torch.tensor(3.0))
    torch.testing.assert_close(losses["loss_alpha"], 3 * (0.2 - losses["kl_policy"]))


@pytest.mark.parametrize("distribution", [d.Categorical, OneHotCategorical, d.OneHotCategorical])
def test_every_plain_categorical_distribution_is_understood(distribution: type) -> None:
    actor = ProbabilisticActor(
        TensorDictModule(nn.Linear(O, A), ["observation"], ["logits"]),
        in_keys=["logits"],
        out_keys=["action"],
        distribution_class=distribution,
    )
    kind = "whole numbers" if distribution is d.Categorical else "one-hot"
    loss = DiscreteMPOLoss(actor, make_discrete_critics(O, SPECS[kind], num_cells=(8,)))
    assert total(loss(make_batch(5, kind=kind))).isfinite()


class Sharpened(d.OneHotCategorical):
    """Reads its logits in a way of its own."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__(logits=10 * logits)


@pytest.mark.parametrize(
    ("parameter", "distribution"),
    [
        ("probs", OneHotCategorical),
        ("logits", Sharpened),
        ("scores", OneHotOrdinal),
    ],
)
def test_a_distribution_reads_what_the_network_returns_in_its_own_way(
    parameter: str, distribution: type
) -> None:
    network = nn.Sequential(nn.Linear(O, A), nn.Softmax(-1))
    actor = ProbabilisticActor(
        TensorDictModule(network, ["observation"], [parameter]),
        in_keys=[parameter],
        distribution_class=distribution,
    )
    batch = make_batch(5)
    with torch.no_grad():
        expected = actor.get_dist(batch.copy()).logits.log_softmax(-1)
    loss = DiscreteMPOLoss(actor, make_discrete_critics(O, OneHot(A), num_cells=(8,)))
    entropy = -(expected.exp() * expected).sum(-1)
    torch.testing.assert_close(loss(batch)["entropy"], entropy.mean())


if __name__ == "__main__":
    pytest.main([__file__])
