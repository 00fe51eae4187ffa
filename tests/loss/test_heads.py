"""MPOLoss on policies with several heads: ``CompositeDistribution``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import CompositeDistribution, NormalParamExtractor, TensorDictModule
from torch import Tensor, nn
from torch import distributions as d
from torchrl.data import Bounded, Categorical, Composite, OneHot
from torchrl.modules import (
    IndependentNormal,
    MaskedCategorical,
    MaskedOneHotCategorical,
    OneHotCategorical,
    ProbabilisticActor,
    TanhNormal,
)
from torchrl.objectives import SoftUpdate

from mpo_torchrl import DiscreteMPOLoss, MPOLoss, MultiObjectiveMPOLoss
from mpo_torchrl.distributions import log_prob
from mpo_torchrl.dual import KLMultiplier, Temperature
from mpo_torchrl.e_step import BehaviourEStep
from mpo_torchrl.m_step import CompositeMStep, DistributionMStep, GaussianMStep
from mpo_torchrl.modules import make_recurrent_critics
from tests.loss import builders
from tests.loss.builders import A, O, loss_entries, make_critic, seeded, total

GEARS = 3
KEYS = [("action", "steer"), ("action", "gear")]
REAL = {"gaussian": IndependentNormal, "tanh_normal": TanhNormal, "normal": d.Normal}
CHOICE: dict[str, Any] = {
    "one_hot": (OneHotCategorical, OneHot(GEARS)),
    "torch_one_hot": (d.OneHotCategorical, OneHot(GEARS)),
    "index": (d.Categorical, Categorical(GEARS)),
    "index in a column": (d.Categorical, Categorical(GEARS, (1,))),
}


class TwoHeads(nn.Module):
    """Two networks that share nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.steer = nn.Sequential(nn.Linear(O, 2 * A), NormalParamExtractor())
        self.gear = nn.Linear(O, GEARS)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return *self.steer(observation), self.gear(observation)


class Score(nn.Module):
    """A value of both heads; remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        layers = (nn.Linear(O + A + GEARS, 32), nn.Tanh(), nn.Linear(32, 1))
        self.body = nn.Sequential(*layers)
        self.seen: list[tuple[torch.dtype, torch.Size]] = []

    def forward(self, observation: Tensor, steer: Tensor, gear: Tensor) -> Tensor:
        self.seen.append((gear.dtype, gear.shape))
        if gear.shape[-1:] != (GEARS,) or gear.ndim < steer.ndim:
            gear = nn.functional.one_hot(gear.reshape(steer.shape[:-1]), GEARS)
        return self.body(torch.cat([observation, steer, gear.to(steer.dtype)], -1))


def spec_of(choice: str = "one_hot") -> Composite:
    steer = Bounded(-1.0, 1.0, (A,))
    return Composite(action=Composite(steer=steer, gear=CHOICE[choice][1]))


def make_actor(real: str = "gaussian", choice: str = "one_hot", **settings) -> ProbabilisticActor:
    parameters = [("steer", "loc"), ("steer", "scale"), ("gear", "logits")]
    return ProbabilisticActor(
        TensorDictModule(TwoHeads(), ["observation"], [("params", *key) for key in parameters]),
        in_keys=["params"],
        distribution_class=CompositeDistribution,
        distribution_kwargs={
            "distribution_map": {"steer": REAL[real], "gear": CHOICE[choice][0]},
            "name_map": dict(zip(("steer", "gear"), KEYS, strict=True)),
        },
        **{"spec": spec_of(choice), **settings},
    )


def make_critics() -> list[TensorDictModule]:
    keys = ["observation", *KEYS]
    return [TensorDictModule(Score(), keys, ["state_action_value"]) for _ in range(2)]


def make_loss(real: str = "gaussian", choice: str = "one_hot", **settings: Any) -> MPOLoss:
    return MPOLoss(make_actor(real, choice), make_critics(), num_action_samples=5, **settings)


def make_batch(*shape: int, choice: str = "one_hot") -> TensorDict:
    batch = builders.make_batch(*shape)
    batch["action"] = spec_of(choice).expand(*shape).rand()["action"]
    return batch


@pytest.mark.parametrize("shape", [(4,), (2, 3)], ids=str)
@pytest.mark.parametrize("choice", CHOICE)
@pytest.mark.parametrize("real", REAL)
def test_the_losses_of_any_heads_train_everything(real: str, choice: str, shape: tuple) -> None:
    loss = make_loss(real, choice)
    losses = loss(make_batch(*shape, choice=choice))
    assert set(losses.keys()) == set(loss.out_keys)
    total(losses).backward()
    trained = [p for p in loss.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


class SomeGears(nn.Module):
    """Two heads, the second with a mask that leaves out the last gear."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = TwoHeads()

    def forward(self, observation: Tensor) -> tuple[Tensor, ...]:
        loc, scale, logits = self.heads(observation)
        allowed = torch.arange(GEARS) < GEARS - 1
        return loc, scale, logits, allowed.expand(logits.shape)


@pytest.mark.parametrize("kind", [MaskedCategorical, MaskedOneHotCategorical])
def test_the_log_probability_under_a_mask_is_torchrls(kind: type) -> None:
    mask = torch.tensor([True, True, False, True]).expand(2, 3, 4)
    policy = kind(logits=torch.randn(2, 3, 4), mask=mask)
    actions = [policy.sample() for _ in range(5)]
    expected = torch.stack([policy.log_prob(action) for action in actions])
    torch.testing.assert_close(log_prob(policy, torch.stack(actions)), expected)


@pytest.mark.parametrize("choice", ["one_hot", "index"])
@pytest.mark.parametrize("shape", [(4,), (2, 3)], ids=str)
def test_a_head_may_have_a_mask(choice: str, shape: tuple) -> None:
    kind = MaskedOneHotCategorical if choice == "one_hot" else MaskedCategorical
    parameters = [("steer", "loc"), ("steer", "scale"), ("gear", "logits"), ("gear", "mask")]
    actor = ProbabilisticActor(
        TensorDictModule(SomeGears(), ["observation"], [("params", *key) for key in parameters]),
        in_keys=["params"],
        distribution_class=CompositeDistribution,
        distribution_kwargs={
            "distribution_map": {"steer": IndependentNormal, "gear": kind},
            "name_map": dict(zip(("steer", "gear"), KEYS, strict=True)),
        },
        spec=spec_of(choice),
    )
    loss = MPOLoss(actor, make_critics(), num_action_samples=5)
    batch = make_batch(*shape, choice=choice)
    drawn = loss.e_step(batch.copy())["e_step", "action"][..., A:]
    last = drawn[..., -1] if choice == "one_hot" else drawn[..., 0] == GEARS - 1
    assert not last.any()
    total(loss(batch)).backward()
    trained = [p for p in loss.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


@pytest.mark.parametrize("e_step_critic", ["target", "next"])
def test_every_way_to_score_serves_several_heads(e_step_critic: Any) -> None:
    assert total(make_loss(e_step_critic=e_step_critic)(make_batch(4))).isfinite()


@pytest.mark.parametrize("policy", ["gaussian", "tanh_normal", "beta"])
def test_one_head_is_the_plain_policy(policy: str) -> None:
    plain = builders.make_actor(policy)
    network, sampling = plain[0], plain[-1]
    names = [("params", "action", key) for key in sampling.in_keys]
    composite = ProbabilisticActor(
        TensorDictModule(network.module, network.in_keys, names),
        in_keys=["params"],
        distribution_class=CompositeDistribution,
        distribution_kwargs={
            "distribution_map": {"action": sampling.distribution_class},
            "extra_kwargs": {"action": sampling.distribution_kwargs},
        },
        spec=Composite(action=builders.SPEC),
    )
    critics = [make_critic(), make_critic()]
    losses = [MPOLoss(actor, critics, num_action_samples=5) for actor in (plain, composite)]
    batch = builders.make_batch(2, 3)
    found = [seeded(loss, batch.copy()) for loss in losses]
    assert (loss_entries(found[0])).keys() == loss_entries(found[1]).keys()
    gradients = []
    for loss, values in zip(losses, found, strict=True):
        for key in loss_entries(values):
            assert torch.equal(found[0][key], values[key]), key
        networks = [*loss.actor_network_params.parameters()]
        networks += [*loss.qvalue_network_params.parameters()]
        trained = [p for p in (*networks, *loss.dual_parameters()) if p.requires_grad]
        gradients.append(torch.autograd.grad(total(values), trained))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_each_head_is_fitted_as_if_it_were_alone() -> None:
    loss, batch = make_loss("tanh_normal"), make_batch(6)
    batch = loss.e_step(batch)
    improved = batch["e_step"]
    loss.actor_network_params.data.apply_(lambda p: p + 0.1)
    loss_actor, _ = loss.actor_loss(batch)
    named = loss.actor_network_params.flatten_keys(".")
    found = dict(zip(named.keys(), torch.autograd.grad(loss_actor, [*named.values()]), strict=True))
    with loss.actor_network_params.to_module(loss.actor_network, preserve_module_state=False):
        policy = loss.actor_network.get_dist(batch.copy())
    reference = loss._policy(batch, loss._reference_actor)[0]
    parts = {"steer": loss._m_step.heads["action_steer"], "gear": loss._m_step.heads["action_gear"]}
    for name, part in parts.items():
        head = improved["head", f"action_{name}"].clone().set("weight", improved["weight"])
        fit = part(head, policy["action", name], reference["action", name])
        alone = fit.nll + sum(m.penalty(fit.kl[k]) for k, m in part.multipliers.items())
        own = {key: value for key, value in named.items() if f".{name}." in key}
        assert own
        for key, gradient in zip(
            own, torch.autograd.grad(alone.mean(), [*own.values()]), strict=True
        ):
            torch.testing.assert_close(found[key], gradient)


def test_a_bound_is_that_of_one_head() -> None:
    loss, batch = make_loss(), make_batch(6)
    loss.actor_network_params.data.apply_(lambda p: p + 0.1)
    loss_alpha, readings = loss.alpha_loss(batch)
    names = ["action_steer_mean", "action_steer_stddev", "action_gear_policy"]
    assert [name for name in loss.multipliers() if name.startswith("alpha")] == [
        f"alpha_{name}" for name in names
    ]
    for name in names:
        multiplier = loss.multipliers()[f"alpha_{name}"]
        multiplier.set_epsilon(0.3)
    loss_alpha, readings = loss.alpha_loss(batch)
    for name in names:
        multiplier = loss.multipliers()[f"alpha_{name}"]
        (gradient,) = torch.autograd.grad(loss_alpha, multiplier.raw, retain_graph=True)
        slope = torch.sigmoid(multiplier.raw) * (0.3 - readings[f"kl_{name}"].mean(0))
        torch.testing.assert_close(gradient, slope)


def test_the_likelihood_of_an_action_is_the_product_of_its_heads() -> None:
    params = TensorDict(
        a=TensorDict(loc=torch.randn(4, 2), scale=torch.ones(4, 2)),
        b=TensorDict(logits=torch.randn(4, 3)),
        batch_size=4,
    )
    policy = CompositeDistribution(params, {"a": IndependentNormal, "b": d.Categorical})
    m_step = CompositeMStep({n: DistributionMStep(KLMultiplier(0.1, 1.0)) for n in "ab"})
    actions = {"a": torch.randn(4, 5, 2), "b": torch.randint(3, (4, 5))}
    improved = TensorDict(weight=torch.rand(4, 5))
    log_prob = torch.zeros(5, 4)
    for name, action in actions.items():
        improved["head", name, "action"] = action
        log_prob = log_prob + policy[name].log_prob(action.movedim(1, 0))
    fit = m_step(improved, policy, policy)
    torch.testing.assert_close(fit.nll, -(improved["weight"].T * log_prob).sum(0))
    entropy = policy["a"].entropy() + policy["b"].entropy()
    torch.testing.assert_close(fit.readings["entropy"], entropy)


@pytest.mark.parametrize("choice", CHOICE)
def test_critics_see_heads_as_the_batch_has_them(choice: str) -> None:
    loss, batch = make_loss(choice=choice, num_bootstrap_samples=2), make_batch(4, choice=choice)
    loss(batch)
    size = {"index": (), "index in a column": (1,)}.get(choice, (GEARS,))
    seen = loss.qvalue_network.module.seen
    assert {shape for _, shape in seen} == {(4 * 5, *size), (4 * 2, *size), (4, *size)}
    assert "index" not in choice or {dtype for dtype, _ in seen} == {torch.int64}


def test_only_a_head_that_can_leave_its_bounds_pays_for_it() -> None:
    loss = make_loss()
    improved = loss.e_step(make_batch(4))["e_step"]
    penalty = loss.penalty_temperature
    steer = improved["head", "action_steer", "action"]
    torch.testing.assert_close(
        penalty.cost(improved["action"]), -(steer - steer.clamp(-1, 1)).norm(dim=-1)
    )
    assert "penalty_temperature" not in make_loss("tanh_normal").multipliers()


class Shifted(IndependentNormal):
    def __init__(self, loc: Tensor, scale: Tensor, *, by: float) -> None:
        super().__init__(loc + by, scale)


def test_a_head_may_need_arguments_of_its_own() -> None:
    actor = make_actor()
    kwargs = actor[-1].distribution_kwargs
    kwargs["distribution_map"] = {**kwargs["distribution_map"], "steer": Shifted}
    kwargs["extra_kwargs"] = {"steer": {"by": 0.5}}
    loss = MPOLoss(actor, make_critics(), num_action_samples=5)
    # A Gaussian was found, which may leave its bounds.
    assert "penalty_temperature" in loss.multipliers()
    assert total(loss(make_batch(4))).isfinite()


def test_heads_of_the_batch_can_be_renamed() -> None:
    loss, batch = make_loss(), make_batch(4)
    expected = seeded(loss, batch.copy())
    renamed = batch.exclude("action")
    renamed["steering"], renamed["gearing"] = batch["action", "steer"], batch["action", "gear"]
    critics = [
        TensorDictModule(c.module, ["observation", "steering", "gearing"], ["state_action_value"])
        for c in make_critics()
    ]
    other = MPOLoss(make_actor(), critics, num_action_samples=5)
    other.load_state_dict(loss.state_dict())
    other.set_keys(action=["steering", "gearing"])
    assert {"steering", "gearing"} < set(other.in_keys)
    torch.testing.assert_close(dict(seeded(other, renamed)), dict(expected))


def test_several_objectives_serve_several_heads() -> None:
    critics = make_critics()
    for critic in critics:
        critic.module.body[-1] = nn.Linear(32, 2)
    loss = MultiObjectiveMPOLoss(make_actor(), critics, {"speed": 0.1, "fuel": 0.01})
    batch = make_batch(4)
    batch["next", "reward"] = torch.randn(4, 2)
    assert total(loss(batch)).isfinite()


def test_both_heads_learn_what_is_good_together() -> None:
    torch.manual_seed(0)
    loss = make_loss("tanh_normal", init_temperature=0.1, epsilon_mean=1.0)
    batch = make_batch(400)
    batch["next", "reward"] = reward_of(batch["action", "steer"], batch["action", "gear"])
    batch["next", "terminated"].fill_(True)
    optimizer, updater = torch.optim.Adam(loss.parameters(), lr=1e-2), SoftUpdate(loss, tau=0.1)
    for _ in range(300):
        total(loss(batch[torch.randint(400, (64,))])).backward()
        optimizer.step()
        optimizer.zero_grad()
        updater.step()
    policy, _ = loss._policy(batch, loss._online_actor)
    modes = policy["action", "steer"].deterministic_sample, policy["action", "gear"].mode
    assert batch["next", "reward"].mean() < -0.2 and reward_of(*modes).mean() > 0.7


def reward_of(steer: Tensor, gear: Tensor) -> Tensor:
    """Each gear wants another direction; the second one is worth most, at best 1."""
    gear = gear.long().argmax(-1)
    place = torch.tensor([-0.5, 0.5, 0.0])[gear].unsqueeze(-1)
    distance = (steer - place).square().sum(-1)
    return (torch.tensor([0.0, 1.0, 0.0])[gear] - distance).unsqueeze(-1)


# -- what is not supported ----------------------------------------------------------------


def test_an_unknown_spec_of_a_head_is_asked_for() -> None:
    spec = Composite(action=Composite(steer=Bounded(-1.0, 1.0, (A,))))
    with pytest.raises(ValueError, match=r"spec of the head \('action', 'gear'\) is not known"):
        MPOLoss(make_actor(spec=None), make_critics(), action_spec=spec)
    MPOLoss(make_actor(spec=None), make_critics(), action_spec=spec_of())


def test_agents_with_several_heads_are_refused() -> None:
    steer, gear = Bounded(-1.0, 1.0, (3, A)), OneHot(GEARS, (3, GEARS))
    spec = Composite(action=Composite(steer=steer, gear=gear))
    with pytest.raises(ValueError, match="agents with several heads are not supported"):
        MPOLoss(make_actor(spec=None), make_critics(), action_spec=spec)


def test_a_data_set_s_actions_of_several_heads_are_not_weighed() -> None:
    with pytest.raises(ValueError, match="weighs one action taken, the policy has the heads"):
        MPOLoss(make_actor(), make_critics(), e_step=BehaviourEStep(Temperature(0.5, 1.0)))


def test_retrace_is_refused_for_several_heads() -> None:
    with pytest.raises(ValueError, match=r"Retrace needs .* has the heads \['action_steer', 'act"):
        make_loss().make_value_estimator("retrace", gamma=0.9)


def test_recurrent_networks_are_refused_for_several_heads() -> None:
    critics = make_recurrent_critics(O, builders.SPEC, state_size=4, num_cells=(8,))
    with pytest.raises(ValueError, match="several heads cannot have recurrent networks"):
        MPOLoss(make_actor(), critics, action_spec=spec_of())


def test_two_heads_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two heads of the policy are called 'a_b'"):
        MPOLoss(two_of_one_name(), make_critics())


def two_of_one_name() -> ProbabilisticActor:
    keys = [("params", *key) for key in (("a", "b", "loc"), ("a", "b", "scale"), ("a_b", "logits"))]
    return ProbabilisticActor(
        TensorDictModule(TwoHeads(), ["observation"], keys),
        in_keys=["params"],
        distribution_class=CompositeDistribution,
        distribution_kwargs={
            "distribution_map": {("a", "b"): IndependentNormal, "a_b": OneHotCategorical}
        },
        spec=Composite(a=Composite(b=Bounded(-1.0, 1.0, (A,))), a_b=OneHot(GEARS)),
    )


def test_a_policy_of_several_heads_is_refused_by_the_discrete_loss() -> None:
    with pytest.raises((TypeError, ValueError), match="CompositeDistribution"):
        DiscreteMPOLoss(make_actor(), make_critics())


@pytest.mark.parametrize("name", ["arm", "action_steer"])
def test_the_m_step_of_other_heads_or_of_some_is_refused(name: str) -> None:
    part = GaussianMStep(KLMultiplier(0.1, 1.0), KLMultiplier(0.1, 1.0))
    loss = make_loss(m_step=CompositeMStep({name: part}))
    found = rf"fits the heads \['{name}'\] .* got \['action_steer', "
    with pytest.raises(ValueError, match=found):
        loss(make_batch(4))


def test_actions_of_an_own_e_step_are_asked_for_head_by_head() -> None:
    loss, batch = make_loss(), make_batch(4)
    batch["e_step"] = TensorDict(action=torch.randn(4, 5, A + GEARS), batch_size=4)
    with pytest.raises(ValueError, match=r"put them under \('head', 'action_steer', 'action'\)"):
        loss.actor_loss(batch)


if __name__ == "__main__":
    pytest.main([__file__])
