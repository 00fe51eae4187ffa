"""MultiObjectiveMPOLoss: several rewards, one policy, bounds as the preference."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from tensordict import TensorDict

import mpo_torchrl.functional as F
from mpo_torchrl import MPOLoss, MultiObjectiveMPOLoss
from mpo_torchrl.critic import MultiObjectiveCritic
from mpo_torchrl.dual import ExactTemperature, ObjectiveTemperatures
from mpo_torchrl.modules import make_critics
from tests.loss.builders import SPEC, O, make_actor, make_batch, move_policy, seeded, total

EPSILON = {"speed": 0.1, "energy": 0.02}
SHAPES = pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 3, 1), (1,)], ids=str)
POLICIES = pytest.mark.parametrize("policy", ["gaussian", "tanh_normal", "beta"])


def make_loss(policy: str = "gaussian", epsilon=EPSILON, **settings: Any) -> MultiObjectiveMPOLoss:
    torch.manual_seed(0)
    critics = make_critics(O, SPEC, num_cells=(8,), num_outputs=len(epsilon))
    loss = MultiObjectiveMPOLoss(make_actor(policy), critics, epsilon, **settings)
    return move_policy(loss)


def rewarded(*shape: int, size: int = 2) -> TensorDict:
    batch = make_batch(*shape)
    batch["next", "reward"] = torch.randn(*shape, size)
    return batch


@POLICIES
@SHAPES
def test_the_losses_of_any_batch_are_finite_and_train_everything(policy: str, shape: tuple) -> None:
    loss = make_loss(policy)
    losses = loss(rewarded(*shape))
    assert set(losses.keys()) == set(loss.out_keys)
    total(losses).backward()
    trained = [p for p in loss.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


def test_one_objective_is_mpo() -> None:
    loss = make_loss(epsilon={"return": 0.1})
    torch.manual_seed(0)
    plain = move_policy(MPOLoss(make_actor(), make_critics(O, SPEC, num_cells=(8,))))
    plain.load_state_dict(
        {
            key.replace("temperature_return", "temperature"): v
            for key, v in loss.state_dict().items()
        }
    )
    batch = rewarded(5, size=1)
    found, expected = seeded(loss, batch.copy()), seeded(plain, batch.copy())
    for key in ("loss_qvalue", "loss_actor", "loss_temperature", "loss_alpha"):
        torch.testing.assert_close(found[key], expected[key])
    torch.testing.assert_close(found["kl_e_step_return"], expected["kl_e_step"])


def test_each_objective_is_weighed_priced_and_read_by_itself() -> None:
    loss, batch = make_loss(epsilon_penalty=None), rewarded(6)
    loss.temperature_energy = 3.0
    values = 2 * torch.randn(6, 20, 2)
    batch["e_step"] = TensorDict(state_action_value=values, batch_size=6)
    losses = loss(batch)
    weights, duals = [], []
    objectives = zip(EPSILON.items(), values.unbind(-1), (1.0, 3.0), strict=True)
    for (name, epsilon), value, eta in objectives:
        weights.append(F.nonparametric_weights(value, eta))
        duals.append(F.temperature_loss(value, eta, epsilon))
        torch.testing.assert_close(losses[f"temperature_{name}"], torch.tensor(eta))
        kl = F.nonparametric_kl(weights[-1]).mean()
        torch.testing.assert_close(losses[f"kl_e_step_{name}"], kl)
    torch.testing.assert_close(losses["loss_temperature"], torch.stack(duals).mean())
    size = F.effective_sample_size(torch.stack(weights).sum(0)).mean()
    torch.testing.assert_close(losses["effective_sample_size"], size)


def test_each_value_learns_from_its_own_reward() -> None:
    loss, batch = make_loss(), rewarded(6)
    batch["next", "terminated"][:] = True  # no bootstrap: targets are the rewards
    before = loss.qvalue_loss(batch)[0]
    predictions = loss.critic.predict(batch, loss.qvalue_network_params)
    expected = (predictions - batch["next", "reward"]).square().sum((0, -1)).mean()
    torch.testing.assert_close(before, expected)
    error = (predictions - batch["next", "reward"]).abs().amax((0, -1))
    torch.testing.assert_close(batch["td_error"], error)


def test_n_step_transitions_discount_the_next_value_of_each_reward() -> None:
    loss, batch = make_loss(), rewarded(6)
    loss.make_value_estimator(gamma=0.5)
    batch["next", "terminated"][:] = batch["next", "done"][:] = False
    batch["next", "reward"].zero_()
    one = loss._value_target(seeded_copy(batch), None)
    batch["steps_to_next_obs"] = torch.full((6, 1), 3)
    three = loss._value_target(seeded_copy(batch), None)
    torch.testing.assert_close(three, one / 4)  # 0.5^3 in place of 0.5


def seeded_copy(batch: TensorDict) -> TensorDict:
    torch.manual_seed(3)
    return batch.copy()


def test_the_unit_of_a_reward_does_not_matter() -> None:
    loss, batch = make_loss(epsilon_penalty=None), rewarded(6)
    values = torch.randn(6, 20, 2)
    weights = []
    for unit in (1.0, 1000.0):
        for name, size in (("speed", unit), ("energy", 1.0)):
            setattr(loss, f"temperature_{name}", 0.7 * size)
        given = batch.copy()
        given["e_step"] = TensorDict(
            state_action_value=values * torch.tensor([unit, 1.0]), batch_size=6
        )
        weights.append(loss.e_step(given)["e_step", "weight"])
    torch.testing.assert_close(weights[0], weights[1])
    torch.testing.assert_close(weights[0].sum(-1), torch.full((6,), 2.0))


def test_a_larger_bound_gives_an_objective_more_say() -> None:
    def value_of(epsilon: dict[str, float]) -> torch.Tensor:
        loss = make_loss(epsilon=epsilon, epsilon_penalty=None, num_action_samples=50)
        batch = loss.e_step(rewarded(20))
        optimizer = torch.optim.Adam(loss.dual_parameters(), lr=0.05)
        for _ in range(300):
            del batch["e_step", "weight"], batch["e_step", "temperature"]
            batch = loss.e_step(batch)
            optimizer.zero_grad()
            loss.temperature_loss(batch)[0].backward()
            optimizer.step()
        values = batch["e_step", "state_action_value"]  # [B, N, K]
        advantage = (values - values.mean(1, keepdim=True)) / values.std()
        return (batch["e_step", "weight"].unsqueeze(-1) * advantage).sum(1).mean(0)

    fast, thrifty = (
        value_of({"speed": 0.5, "energy": 0.01}),
        value_of({"speed": 0.01, "energy": 0.5}),
    )
    assert fast[0] > thrifty[0] and fast[1] < thrifty[1]


def test_bounds_are_read_and_set_by_name() -> None:
    loss = make_loss()
    loss.epsilon = {"energy": 0.3}
    assert {name: float(value) for name, value in loss.epsilon.items()} == pytest.approx(
        {"speed": 0.1, "energy": 0.3}
    )
    with pytest.raises(
        ValueError, match=r"'comfort' is no objective, they are \['speed', 'energy'\]"
    ):
        loss.epsilon = {"comfort": 0.1}


@pytest.mark.parametrize("e_step_critic", ["online", "target", "next"])
def test_every_way_to_score_serves_several_objectives(e_step_critic) -> None:
    assert total(make_loss(e_step_critic=e_step_critic)(rewarded(4))).isfinite()


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_reductions_are_of_the_same_numbers(reduction: str) -> None:
    mean = seeded(make_loss(), rewarded(2, 3))
    other = seeded(make_loss(reduction=reduction), rewarded(2, 3))
    for key in ("loss_actor", "loss_temperature", "loss_alpha"):
        assert reduction == "sum" or other[key].shape == (2, 3)
    torch.testing.assert_close(other["loss_alpha"].sum() / 6, mean["loss_alpha"])


def test_masked_states_do_not_count() -> None:
    loss, batch = make_loss(), rewarded(4)
    batch = loss.e_step(batch)
    kept = torch.tensor([True, False, True, True])
    expected = seeded(loss, batch[kept])
    batch["observation"][~kept] = torch.nan
    batch["collector", "mask"] = kept.unsqueeze(-1)
    found = seeded(loss, batch)
    for key in ("loss_temperature", "loss_actor", "kl_e_step_speed", "temperature_energy"):
        torch.testing.assert_close(found[key], expected[key])


def test_it_can_be_copied_saved_and_loaded() -> None:
    loss, batch = make_loss(), rewarded(4)
    other = make_loss()
    other.reset_parameters_recursive()
    other.load_state_dict(loss.state_dict())
    expected = seeded(loss, batch.copy())
    for copied in (deepcopy(loss), other):
        assert (seeded(copied, batch.copy()) == expected).all()


def test_the_compiled_loss_is_one_graph_with_the_same_numbers() -> None:
    loss, batch = make_loss(), rewarded(4)
    expected = seeded(loss, batch.copy())
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(dict(seeded(compiled, batch.copy())), dict(expected))


@pytest.mark.parametrize(
    ("epsilon", "message"),
    [
        ({}, "at least one objective"),
        ({"speed": 0.0}, "epsilon of 'speed' is a bound"),
    ],
    ids=["none", "zero"],
)
def test_impossible_bounds_are_refused(epsilon: dict, message: str) -> None:
    critics = make_critics(O, SPEC, num_cells=(8,))
    with pytest.raises(ValueError, match=message):
        MultiObjectiveMPOLoss(make_actor(), critics, epsilon)


def test_a_reward_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"reward'\) must be \[\*B, 2\] = \[4, 2\], got \[4, 1\]"):
        make_loss()(make_batch(4))


def test_another_number_of_bounds_than_of_the_critics_objectives_is_refused() -> None:
    critic = MultiObjectiveCritic(make_critics(O, SPEC, num_cells=(8,), num_outputs=3), 3)
    with pytest.raises(ValueError, match=r"each of the critic's 3 objectives, got 2: \['speed', '"):
        MultiObjectiveMPOLoss(make_actor(), critic, EPSILON)


def test_a_critic_of_another_size_is_refused() -> None:
    loss = MultiObjectiveMPOLoss(make_actor(), make_critics(O, SPEC, num_cells=(8,)), EPSILON)
    with pytest.raises(ValueError, match="a critic of 2 objectives ends in a layer with an output"):
        loss(rewarded(4))


@pytest.mark.parametrize(
    ("epsilon", "error", "sentence"),
    [
        ([0.1, 0.1], TypeError, r"must be a mapping of each objective's name.*got \[0.1, 0.1\]"),
        ({"values": 0.1, "b": 0.1}, ValueError, "cannot be called 'values'"),
        ({"a.b": 0.1, "b": 0.1}, ValueError, "cannot be called 'a.b'"),
    ],
)
def test_bounds_without_usable_names_are_refused(epsilon, error, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        make_loss(epsilon=epsilon)


def test_one_temperature_for_all_is_refused() -> None:
    with pytest.raises(ValueError, match="several objectives have a temperature each"):
        make_loss(temperature=ExactTemperature(0.1))


def test_retrace_is_refused() -> None:
    with pytest.raises(ValueError, match="the return of one reward, .* has 2; take TD"):
        make_loss().make_value_estimator("retrace")


def test_a_bound_without_a_name_is_refused_later_too() -> None:
    with pytest.raises(TypeError, match="epsilon must be a mapping of each objective's name"):
        make_loss().epsilon = 0.1


def test_an_objective_whose_name_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="called by a text such as 'speed', got 0"):
        ObjectiveTemperatures({0: 0.1})


if __name__ == "__main__":
    pytest.main([__file__])
