"""``MPOLoss`` with each critic part: the contract of the scalar critic holds for all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torch._dynamo.utils import counters
from torchrl.modules import ValueOperator
from torchrl.objectives import SoftUpdate, ValueEstimators
from torchrl.objectives.value import TDLambdaEstimator

from mpo_torchrl import MPOLoss
from mpo_torchrl.critic import (
    CategoricalCritic,
    Critic,
    MixtureCritic,
    QuantileCritic,
    ScalarCritic,
    TwoHotCritic,
)
from mpo_torchrl.modules import make_critics
from tests.loss.builders import SPEC, O, make_actor, make_batch, seeded, total, trained_groups

SUPPORT = torch.linspace(-10.0, 10.0, 11)
KINDS: dict[str, tuple[int, Callable[[Any], Critic]]] = {
    "scalar": (1, ScalarCritic),
    "c51": (11, lambda networks: CategoricalCritic(networks, SUPPORT)),
    "two_hot": (11, lambda networks: TwoHotCritic(networks, SUPPORT)),
    "quantile": (7, lambda networks: QuantileCritic(networks, num_quantiles=7)),
    "mixture": (
        6,
        lambda networks: MixtureCritic(networks, num_components=2, num_samples=16, init_scale=1.0),
    ),
}
EVERY = pytest.mark.parametrize("name", KINDS)
BOOTSTRAPPED = pytest.mark.parametrize("name", ["c51", "quantile", "mixture"])


def networks(name: str, count: int = 2) -> list[ValueOperator]:
    outputs = KINDS[name][0]
    return make_critics(O, SPEC, num_critics=count, num_cells=(8, 8), num_outputs=outputs)


def make_loss(name: str, count: int = 2, **settings: Any) -> MPOLoss:
    critic = KINDS[name][1](networks(name, count))
    settings = {"num_action_samples": 5, "num_qvalue_nets": count, **settings}
    return MPOLoss(make_actor(), critic, **settings).make_value_estimator(gamma=0.9)


@EVERY
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("batch", [(4,), (2, 3)], ids=str)
@pytest.mark.parametrize("e_step_critic", ["online", "next"])
def test_losses_and_priorities_have_the_shape_of_the_batch(
    name: str, count: int, batch: tuple, e_step_critic: str
) -> None:
    loss = make_loss(name, count, reduction="none", e_step_critic=e_step_critic)
    td = make_batch(*batch)
    losses = loss(td)
    assert all(value.shape == batch and value.isfinite().all() for value in losses.values())
    assert td["td_error"].shape == batch and (td["td_error"] >= 0).all()
    assert td["td_error"].requires_grad is False
    _, readings = loss.qvalue_loss(td)
    assert readings["q_value"].shape == batch


@EVERY
def test_one_network_is_expanded(name: str) -> None:
    loss = MPOLoss(make_actor(), KINDS[name][1](networks(name, 1)[0]))
    assert loss.num_qvalue_nets == 2 and total(loss(make_batch(4))).isfinite()


@EVERY
@pytest.mark.parametrize("e_step_critic", ["online", "target", "next"])
def test_the_critic_s_loss_trains_the_critics_and_no_other_does(
    name: str, e_step_critic: str
) -> None:
    loss = make_loss(name, e_step_critic=e_step_critic)
    losses = loss(make_batch(4))
    assert trained_groups(loss, losses["loss_qvalue"]) == {"qvalue"}
    for key in ("loss_actor", "loss_temperature", "loss_alpha"):
        assert "qvalue" not in trained_groups(loss, losses[key])
    assert not losses["q_value"].requires_grad


@EVERY
def test_the_reduced_losses_are_those_of_the_states(name: str) -> None:
    loss, td = make_loss(name), make_batch(5, 3)
    found = {}
    for reduction in ("none", "mean", "sum"):
        loss.reduction, loss.out_keys = reduction, None
        found[reduction] = seeded(loss, td.clone())["loss_qvalue"]
    torch.testing.assert_close(found["none"].mean(), found["mean"])
    torch.testing.assert_close(found["none"].sum(), found["sum"])


@EVERY
def test_masked_states_may_hold_anything(name: str) -> None:
    loss, td = make_loss(name), make_batch(6)
    td["collector", "mask"] = torch.tensor([True] * 4 + [False] * 2).unsqueeze(-1)
    poisoned = td.clone()
    poisoned["observation"][4:] = float("nan")
    poisoned["next", "reward"][4:] = float("inf")
    expected = seeded(loss, td)["loss_qvalue"]
    torch.testing.assert_close(seeded(loss, poisoned)["loss_qvalue"], expected)


@EVERY
def test_importance_weights_weigh_the_critic_s_loss(name: str) -> None:
    loss, td = make_loss(name), make_batch(6)
    plain = seeded(loss, td.clone())["loss_qvalue"]
    td["priority_weight"] = torch.full((6,), 3.0)
    torch.testing.assert_close(seeded(loss, td)["loss_qvalue"], plain)  # a weighted mean
    td["priority_weight"] = torch.tensor([1.0] + [0.0] * 5)
    assert not torch.isclose(seeded(loss, td)["loss_qvalue"], plain)


@EVERY
def test_values_of_the_e_step_are_the_smallest_means(name: str) -> None:
    loss = make_loss(name)
    td = loss.e_step(make_batch(4))
    states = td.select("observation").unsqueeze(1).expand(4, 5).clone()
    states["action"] = td["e_step", "action"]
    means = loss.critic.mean(loss.critic.predict(states, loss.qvalue_network_params))
    found = td["e_step", "state_action_value"]
    torch.testing.assert_close(found, means.amin(0).detach(), rtol=0.02, atol=0.02)


@EVERY
def test_the_bootstrap_mixes_the_predictions_of_the_e_step_at_the_next_state(name: str) -> None:
    loss = make_loss(name, e_step_critic="next")
    td = loss.e_step(make_batch(4))
    prediction = td["e_step", "prediction"]
    assert prediction.shape[:3] == (4, 2, 5)
    if isinstance(loss.critic, MixtureCritic):
        loss.critic.num_samples = 50_000
    _, readings = loss.qvalue_loss(td)
    following = td["next"]
    value = td["e_step", "state_action_value"].mean(-1)
    continues = ~following["terminated"].squeeze(-1)
    target = following["reward"].squeeze(-1) + 0.9 * continues * value
    trained = loss.critic.mean(loss.critic.predict(td, loss.qvalue_network_params))
    expected = (trained - target).abs().amax(0).detach()
    torch.testing.assert_close(readings["td_error"], expected, atol=0.02, rtol=0.01)


@EVERY
def test_values_that_are_given_at_the_next_state_need_no_prediction(name: str) -> None:
    loss = make_loss(name, e_step_critic="next")
    td = loss.e_step(make_batch(4))
    expected = seeded(loss.qvalue_loss, td.clone())[0]
    del td["e_step", "prediction"]
    torch.testing.assert_close(seeded(loss.qvalue_loss, td)[0], expected)


# -- targets ------------------------------------------------------------------------------


class FirstNumber(nn.Module):
    """Every output is the first number of the state, plus an offset to be learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.full((1,), -1000.0))

    def forward(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return observation[..., :1] + self.offset.expand(3)


def test_n_step_data_and_terminations_are_discounted_as_the_scalar_critic_discounts() -> None:
    network = ValueOperator(FirstNumber(), ["observation", "action"], ["state_action_value"])
    critic = QuantileCritic(network, num_quantiles=3)
    loss = MPOLoss(make_actor(), critic, num_qvalue_nets=1).make_value_estimator(gamma=0.9)
    for parameter in loss.target_qvalue_network_params.values(True, True):
        parameter.zero_()
    td = make_batch(8)
    td["steps_to_next_obs"] = torch.arange(1, 9).unsqueeze(-1)
    _, readings = loss.qvalue_loss(td)
    following = td["next"]
    discount = 0.9 ** td["steps_to_next_obs"] * ~following["terminated"]
    expected = following["reward"] + discount * following["observation"][:, :1]
    found = readings["q_value"] + readings["td_error"]
    torch.testing.assert_close(found, expected.squeeze(-1), atol=1e-3, rtol=1e-3)


@BOOTSTRAPPED
@pytest.mark.parametrize("kind", ["enum", "name", "instance"])
def test_td_lambda_is_refused_and_changes_nothing(name: str, kind: str) -> None:
    loss = make_loss(name)
    before, value_type = loss.value_estimator, loss.value_type
    wanted = {
        "enum": ValueEstimators.TDLambda,
        "name": "tdlambda",
        "instance": TDLambdaEstimator(gamma=0.9, lmbda=0.5, value_network=None),
    }[kind]
    with pytest.raises(ValueError, match="needs the value estimator TD0, got TDLambdaEstimator"):
        loss.make_value_estimator(wanted)
    assert loss.value_estimator is before and loss.value_type == value_type
    assert total(loss(make_batch(4))).isfinite()


def test_two_hot_takes_td_lambda() -> None:
    loss = make_loss("two_hot").make_value_estimator(ValueEstimators.TDLambda, gamma=0.9)
    assert total(loss(make_batch(4, 3))).isfinite()


@EVERY
def test_a_network_with_a_wrong_number_of_outputs_is_refused(name: str) -> None:
    critic = KINDS[name][1](make_critics(O, SPEC, num_cells=(8,), num_outputs=4))
    with pytest.raises(
        ValueError, match=r"must write 'state_action_value' as \[\*B, .*, got .*4\]"
    ):
        MPOLoss(make_actor(), critic)(make_batch(4))


@EVERY
def test_a_critic_keeps_its_key(name: str) -> None:
    made = networks(name)
    for network in made:
        network.out_keys = ["q"]
    critic = KINDS[name][1](made)
    loss = MPOLoss(make_actor(), critic)
    loss.set_keys(state_action_value="q")
    assert total(loss(make_batch(4))).isfinite()


# -- state and precision ------------------------------------------------------------------


@EVERY
def test_copies_and_states_give_the_same_numbers(name: str) -> None:
    loss, td = make_loss(name), make_batch(4)
    expected = seeded(loss, td.clone())
    copied, other = deepcopy(loss), make_loss(name)
    other.load_state_dict(loss.state_dict())
    for again in (copied, other):
        for key, value in seeded(again, td.clone()).items():
            torch.testing.assert_close(value, expected[key], msg=key)
    with torch.no_grad():
        for parameter in copied.network_parameters():
            parameter.add_(1.0)
    torch.testing.assert_close(seeded(loss, td.clone())["loss_qvalue"], expected["loss_qvalue"])


@EVERY
def test_float64_networks_compute_in_float64(name: str) -> None:
    loss = make_loss(name).double()
    td = make_batch(4, dtype=torch.float64)
    losses = loss(td)
    assert {value.dtype for value in losses.values()} == {torch.float64}
    assert td["td_error"].dtype == torch.float64


def test_the_support_is_saved_and_moves_with_the_loss() -> None:
    loss = make_loss("c51")
    assert loss.critic.support is loss.critic_support
    other = MPOLoss(make_actor(), CategoricalCritic(networks("c51"), 3 * SUPPORT))
    other.load_state_dict(loss.state_dict())
    assert (other.critic.support == SUPPORT).all()
    double = deepcopy(loss).double()
    assert double.critic.support is double.critic_support
    assert double.critic.support.dtype == torch.float64
    assert loss.critic.support.dtype == torch.float32
    critics = [network.double() for network in networks("c51")]
    born_double = MPOLoss(make_actor().double(), CategoricalCritic(critics, SUPPORT))
    assert born_double.critic.support.dtype == torch.float64


def test_what_is_no_network_is_not_trained_and_not_averaged() -> None:
    loss = make_loss("c51")
    assert not any("support" in name for name, _ in loss.named_parameters())
    SoftUpdate(loss, tau=0.5).step()
    assert (loss.critic.support == SUPPORT).all()


@EVERY
def test_scoring_is_reduced_in_the_hidden_layers_only(name: str, monkeypatch) -> None:
    loss = make_loss(name, scoring_dtype=torch.bfloat16)
    seen = []
    linear = nn.functional.linear

    def watch(x, weight, bias=None):
        seen.append(weight.dtype)
        return linear(x, weight, bias)

    monkeypatch.setattr(nn.functional, "linear", watch)
    improved = loss.e_step(make_batch(4))["e_step"]
    bfloat16, float32 = torch.bfloat16, torch.float32
    layers = [bfloat16, bfloat16, float32]  # of each of the two critics
    assert seen[-6:] == 2 * layers
    assert improved["state_action_value"].dtype == float32


@pytest.mark.parametrize("name", ["c51", "two_hot", "quantile", "mixture"])
def test_the_loss_is_one_graph_and_gives_the_same_numbers(name: str) -> None:
    torch.compiler.reset()
    counters.clear()
    loss, td = make_loss(name, num_bootstrap_samples=2), make_batch(4)
    expected = seeded(loss, td.clone())
    found = seeded(torch.compile(loss, fullgraph=True, backend="aot_eager"), td.clone())
    for key, value in found.items():
        torch.testing.assert_close(value, expected[key], msg=key)
    assert not counters["graph_break"]
    torch.compiler.reset()


def test_a_batch_of_a_reward_with_more_digits_is_taken() -> None:
    for name in KINDS:
        td: TensorDict = make_batch(4)
        td["next", "reward"] = td["next", "reward"].double()
        assert total(make_loss(name)(td)).isfinite()


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
