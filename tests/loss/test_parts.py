"""Each part alone, parts put in from outside, and E-steps made elsewhere."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torchrl.modules import ValueOperator

from mpo_torchrl import MPOLoss
from mpo_torchrl.critic import ScalarCritic
from mpo_torchrl.dual import ActionPenalty, KLMultiplier, Temperature
from mpo_torchrl.e_step import SampledEStep
from mpo_torchrl.m_step import DistributionMStep, GaussianMStep
from tests.loss.builders import (
    POLICIES,
    A,
    make_actor,
    make_batch,
    make_critic,
    make_loss,
    move_policy,
    seeded,
    total,
    trained_groups,
)

# -- alone --------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("shape", [(4,), (2, 3)], ids=str)
@pytest.mark.parametrize("policy", POLICIES)
def test_parts_alone_are_what_forward_returns(policy: str, shape: tuple, reduction: str) -> None:
    loss = move_policy(make_loss(policy, reduction=reduction))
    batch = loss.e_step(make_batch(*shape))
    losses = seeded(loss, batch)
    parts = {
        "loss_qvalue": loss.qvalue_loss,
        "loss_temperature": loss.temperature_loss,
        "loss_actor": loss.actor_loss,
        "loss_alpha": loss.alpha_loss,
    }
    for key, part in parts.items():
        value, readings = seeded(part, batch)
        torch.testing.assert_close(value, losses[key], msg=key)
        assert trained_groups(loss, value) == trained_groups(loss, losses[key])
        for name, reading in readings.items():
            assert not reading.requires_grad, name
            if reduction != "none" and name in losses.keys():
                torch.testing.assert_close(reading.mean(), losses[name], msg=name)


def test_parts_add_up_to_one_backward_pass() -> None:
    loss = make_loss()
    batch = loss.e_step(make_batch(4))
    parts = (loss.qvalue_loss, loss.temperature_loss, loss.actor_loss, loss.alpha_loss)
    whole = torch.autograd.grad(total(seeded(loss, batch)), list(loss.parameters()))
    alone = torch.autograd.grad(
        sum(seeded(part, batch)[0] for part in parts), list(loss.parameters())
    )
    torch.testing.assert_close(alone, whole)


def test_the_e_step_alone_writes_nothing_else() -> None:
    batch = make_batch(4)
    before = set(batch.keys())
    assert make_loss().e_step(batch) is batch
    assert set(batch.keys()) - before == {"e_step"}


def test_the_critic_alone_needs_no_e_step_and_runs_none() -> None:
    loss, batch = make_loss(), make_batch(4)
    loss.qvalue_loss(batch)
    assert "e_step" not in batch.keys() and batch["td_error"].shape == (4,)


# -- made elsewhere -----------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_an_e_step_in_the_batch_is_used_as_it_is(policy: str) -> None:
    loss = move_policy(make_loss(policy))
    batch = loss.e_step(make_batch(4))
    before = batch["e_step"].clone()
    first, second = seeded(loss, batch, seed=1), seeded(loss, batch, seed=2)
    for key in set(first.keys()) - {"loss_qvalue"}:
        torch.testing.assert_close(first[key], second[key], msg=key)
    assert (batch["e_step"] == before).all()


def test_given_actions_are_scored_and_weighed() -> None:
    loss, batch = make_loss(epsilon_penalty=None, init_temperature=0.3), make_batch(4)
    action = torch.rand(4, 7, A)
    batch["e_step"] = TensorDict(action=action, batch_size=4)
    improved = loss.e_step(batch)["e_step"]
    assert (improved["action"] == action).all()
    states = batch.select("observation").unsqueeze(1).expand(4, 7).clone()
    states["action"] = action
    value = loss.critic.predict(states, loss.qvalue_network_params).amin(0).detach()
    torch.testing.assert_close(improved["state_action_value"], value)
    torch.testing.assert_close(improved["weight"], (value / 0.3).softmax(-1))


def test_given_values_are_weighed() -> None:
    loss, batch = make_loss(epsilon_penalty=None, init_temperature=2.0), make_batch(4)
    value = 10 * torch.randn(4, 3)
    batch["e_step"] = TensorDict(action=torch.rand(4, 3, A), state_action_value=value, batch_size=4)
    weight = loss.e_step(batch)["e_step", "weight"]
    torch.testing.assert_close(weight, (value / 2.0).softmax(-1))


def test_given_weights_are_what_the_policy_is_fitted_to() -> None:
    loss, batch = make_loss(epsilon_penalty=None), make_batch(4)
    weight = torch.full((4, 3), 1 / 3)
    batch["e_step"] = TensorDict(action=torch.rand(4, 3, A), weight=weight, batch_size=4)
    uniform, _ = loss.actor_loss(batch)
    batch["e_step", "weight"] = 2 * weight
    torch.testing.assert_close(loss.actor_loss(batch)[0], 2 * uniform)


GIVEN_SHAPES = {
    "action": [(4, A), (4, 3, A + 1)],
    "state_action_value": [(4, 5), (4, 3, 1)],
    "weight": [(4, 5), (4,)],
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("key", GIVEN_SHAPES)
def test_a_given_entry_of_another_shape_is_named(key: str, policy: str) -> None:
    loss = make_loss(policy)
    for shape in GIVEN_SHAPES[key]:
        entries = {"action": torch.rand(4, 3, A), key: torch.rand(shape)}
        batch = make_batch(4).set("e_step", TensorDict(entries, batch_size=4))
        for call in (loss, loss.e_step, loss.actor_loss):
            with pytest.raises(ValueError, match=f"entry '{key}' must be .*, got .*{shape[-1]}]"):
                call(batch)


def test_a_given_e_step_that_is_no_tensordict_is_named() -> None:
    batch = make_batch(4).set("e_step", torch.zeros(4, 3))
    with pytest.raises(TypeError, match="entry 'e_step' must be a TensorDict .*, got Tensor"):
        make_loss()(batch)


# -- put in -------------------------------------------------------------------------------


class Wrapped(nn.Module):
    """No more than a loss asks of an E-step: no penalty among it."""

    weighs_taken = False

    def __init__(self) -> None:
        super().__init__()
        self.inner = SampledEStep(Temperature(0.1, 1.0))
        self.temperature = self.inner.temperature

    def forward(self, *args: Any, **kwargs: Any) -> TensorDict:
        return self.inner(*args, **kwargs)

    def dual_terms(self, improved: TensorDict) -> tuple[Tensor, dict[str, Tensor]]:
        return self.inner.dual_terms(improved)


def test_an_own_e_step_needs_no_penalty() -> None:
    loss = make_loss("gaussian", e_step=Wrapped())
    assert "penalty_temperature" not in loss.multipliers()
    assert total(loss(make_batch(4))).isfinite()


def test_an_own_e_step_is_used_with_its_temperature() -> None:
    temperature = Temperature(epsilon=0.3, init=5.0)
    e_step = SampledEStep(temperature, num_action_samples=9)
    loss = make_loss("gaussian", e_step=e_step)
    assert loss.temperature is temperature and loss.epsilon == 0.3
    assert "penalty_temperature" not in loss.out_keys
    batch = loss.e_step(make_batch(4))
    assert batch["e_step", "action"].shape == (4, 9, A)
    losses = loss(batch)
    assert losses["temperature"] == 5.0
    assert trained_groups(loss, losses["loss_temperature"]) == {"temperature"}


def test_an_own_penalty_has_its_own_bounds() -> None:
    penalty = ActionPenalty(0.01, 2.0, low=-0.1 * torch.ones(A), high=0.1 * torch.ones(A))
    e_step = SampledEStep(Temperature(0.1, 1.0), num_action_samples=4, penalty=penalty)
    losses = (loss := make_loss("gaussian", e_step=e_step))(make_batch(4))
    assert loss.penalty_temperature is penalty and losses["penalty_temperature"] == 2.0
    groups = trained_groups(loss, losses["loss_temperature"])
    assert groups == {"temperature", "penalty_temperature"}


def test_an_own_temperature_may_solve_for_its_value() -> None:
    class TenthOfTheSpread(Temperature):
        def forward(self, q_value: Tensor | None = None) -> Tensor:
            return super().forward() if q_value is None else q_value.std().detach() / 10

    loss = make_loss("tanh_normal", e_step=SampledEStep(TenthOfTheSpread(0.1, 1.0)))
    batch = loss.e_step(make_batch(4))
    spread = batch["e_step", "state_action_value"].std()
    torch.testing.assert_close(loss(batch)["temperature"], spread / 10)


def test_an_own_m_step_is_used_with_its_multipliers() -> None:
    alphas = [KLMultiplier(0.2, 4.0, name="epsilon_mean"), KLMultiplier(0.1, 6.0)]
    loss = move_policy(make_loss("tanh_normal", m_step=GaussianMStep(*alphas)))
    assert loss.alpha_mean is alphas[0] and loss.epsilon_mean == torch.tensor(0.2)
    losses = loss(make_batch(4))
    assert losses["alpha_mean"] == 4.0 and losses["alpha_stddev"] == 6.0
    assert trained_groups(loss, losses["loss_alpha"]) == {"alpha_mean", "alpha_stddev"}


def test_a_gaussian_policy_may_be_bounded_as_a_whole() -> None:
    m_step = DistributionMStep(KLMultiplier(0.1, 1.0))
    loss = move_policy(make_loss("gaussian", m_step=m_step))
    losses = loss(make_batch(4))
    assert "kl_policy" in losses.keys() and "kl_mean" not in losses.keys()
    assert losses["kl_policy"] > 0
    assert trained_groups(loss, losses["loss_actor"]) == {"actor"}


def test_an_own_critic_part_decides_loss_value_and_priority() -> None:
    class MeanCritic(ScalarCritic):
        def value(self, prediction: Tensor) -> Tensor:
            return prediction.mean(0)

        def td_error(self, prediction: Tensor, target: Tensor) -> Tensor:
            return torch.full_like(target, 7.0)

    critic = MeanCritic([make_critic() for _ in range(3)], loss_function="smooth_l1")
    loss, batch = MPOLoss(make_actor(), critic), make_batch(4)
    assert trained_groups(loss, loss(batch)["loss_qvalue"]) == {"qvalue"}
    assert (batch["td_error"] == 7.0).all()
    improved = loss.e_step(batch)["e_step"]
    states = batch.select("observation").unsqueeze(1).expand(4, 20).clone()
    states["action"] = improved["action"]
    values = critic.predict(states, loss.qvalue_network_params).mean(0)
    torch.testing.assert_close(improved["state_action_value"], values.detach())


def test_own_parts_take_the_precision_of_the_networks() -> None:
    loss = MPOLoss(
        make_actor().double(),
        [make_critic().double() for _ in range(2)],
        e_step=SampledEStep(Temperature(0.1, 1.0)),
    )
    assert {p.dtype for p in loss.parameters()} == {torch.float64}
    assert total(loss(make_batch(4, dtype=torch.float64))).dtype == torch.float64


# -- how many actions ---------------------------------------------------------------------


class PlusMinus(nn.Module):
    """Values an action by its first number, or by minus that."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = nn.Parameter(torch.tensor([sign]))

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        return self.sign * action[..., :1]


def plus_minus_loss(signs: tuple[float, ...], num_bootstrap_samples: int) -> MPOLoss:
    actor = make_actor()
    for parameter in actor.parameters():  # one policy for all states
        parameter.data.zero_()
    critics = [ValueOperator(PlusMinus(s), in_keys=["observation", "action"]) for s in signs]
    return MPOLoss(
        actor,
        critics,
        num_qvalue_nets=len(signs),
        num_bootstrap_samples=num_bootstrap_samples,
    ).make_value_estimator(gamma=1.0)


def bootstraps(loss: MPOLoss) -> Tensor:
    """Values of next states, where reward and taken action are zero."""
    batch = make_batch(2000)
    for key in (("next", "reward"), ("next", "done"), ("next", "terminated"), "action"):
        batch[key].zero_()
    return loss.qvalue_loss(batch)[1]["td_error"]  # absolute


def test_the_bootstrap_averages_its_samples() -> None:
    one, many = (bootstraps(plus_minus_loss((1.0,), m)).square().mean().sqrt() for m in (1, 16))
    torch.testing.assert_close(one / many, torch.tensor(4.0), rtol=0.1, atol=0.0)


def test_the_ensemble_s_minimum_is_taken_before_the_average() -> None:
    pessimistic = bootstraps(plus_minus_loss((1.0, -1.0), 200)).mean()
    assert pessimistic > 0.3  # E|a|; the other order would give nearly 0
    scale = 0.5  # of the policy
    expected = scale * (2 / torch.pi) ** 0.5
    torch.testing.assert_close(pessimistic, torch.tensor(expected), rtol=0.05, atol=0.0)


@pytest.mark.parametrize("num_action_samples", [1, 2, 30])
def test_any_number_of_actions_will_do(num_action_samples: int) -> None:
    losses = make_loss("gaussian", num_action_samples=num_action_samples)(make_batch(1))
    assert all(value.isfinite() for value in losses.values())
    assert losses["effective_sample_size"] <= num_action_samples + 1e-4
    if num_action_samples == 1:
        torch.testing.assert_close(losses["kl_e_step"], torch.tensor(0.0), rtol=0, atol=1e-7)


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
