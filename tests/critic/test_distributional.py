"""Critics that predict more than a number: the equations, what they share, and their errors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from torch import distributions as d
from torchrl.modules import MLP, ValueOperator
from torchrl.objectives.value import TD0Estimator, TDLambdaEstimator

from mpo_torchrl.critic import (
    CategoricalCritic,
    Critic,
    MixtureCritic,
    QuantileCritic,
    ScalarCritic,
    TwoHotCritic,
)
from mpo_torchrl.critic.distributional import reward_and_discount
from mpo_torchrl.functional import mixture_nll, mixture_sample, signed_hyperbolic

O, A = 3, 2  # noqa: E741
SUPPORT = torch.linspace(-4.0, 4.0, 9)


def network(outputs: int) -> ValueOperator:
    mlp = MLP(in_features=O + A, out_features=outputs, num_cells=[8])
    return ValueOperator(mlp, in_keys=["observation", "action"])


def networks(outputs: int, count: int = 2) -> list[ValueOperator]:
    return [network(outputs) for _ in range(count)]


@pytest.mark.parametrize("support", [None, "wide", [[1.0], [2.0, 3.0]]], ids=repr)
def test_a_support_of_no_numbers_is_refused(support) -> None:
    with pytest.raises(TypeError, match=r"support must be the atoms \[K\], such as"):
        CategoricalCritic(network(9), support)


@pytest.mark.parametrize("threshold", [None, "1"], ids=repr)
def test_a_huber_threshold_that_is_no_number_is_refused(threshold) -> None:
    with pytest.raises(TypeError, match="huber_threshold must be a number, got"):
        QuantileCritic(network(7), num_quantiles=7, huber_threshold=threshold)


MAKERS: dict[str, Callable[[int], Critic]] = {
    "c51": lambda count: CategoricalCritic(networks(9, count), SUPPORT),
    "two_hot": lambda count: TwoHotCritic(networks(9, count), SUPPORT),
    "quantile": lambda count: QuantileCritic(networks(7, count), num_quantiles=7),
    "mixture": lambda count: MixtureCritic(networks(6, count), num_components=2, init_scale=1.0),
}
EVERY = pytest.mark.parametrize("name", MAKERS)
BOOTSTRAPPED = pytest.mark.parametrize("name", ["c51", "quantile", "mixture"])


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    torch.manual_seed(0)


def states(*batch: int) -> TensorDict:
    entries = {"observation": torch.randn(*batch, O), "action": torch.rand(*batch, A)}
    return TensorDict(entries, batch_size=batch)


def transitions(*batch: int, reward: float = 0.5) -> TensorDict:
    """Every second one terminates."""
    terminated = (torch.arange(torch.Size(batch).numel()) % 2 == 1).reshape(*batch, 1)
    following = {
        "reward": torch.full((*batch, 1), reward),
        "done": terminated.clone(),
        "terminated": terminated,
    }
    return TensorDict({"next": TensorDict(following, batch)}, batch)


def td0(gamma: float = 0.9) -> TD0Estimator:
    return TD0Estimator(gamma=gamma, value_network=None)


# -- the equations ------------------------------------------------------------------------


def test_c51_moves_the_atoms_and_projects_them() -> None:
    critic = CategoricalCritic(network(3), [0.0, 1.0, 2.0])
    following = torch.tensor([[[0.0, 50.0, 0.0]]])  # [B=1, M=1, K=3]: a return of 1
    target = critic.backup(following, torch.tensor([[0.25]]), torch.tensor([[0.5]]))
    torch.testing.assert_close(target, torch.tensor([[0.25, 0.75, 0.0]]))


def test_c51_pays_the_cross_entropy() -> None:
    critic = CategoricalCritic(network(2), [0.0, 1.0])
    prediction = torch.zeros(2, 1, 2)  # [C=2, B=1, K=2]
    loss = critic.loss(prediction, torch.tensor([[0.3, 0.7]]))
    torch.testing.assert_close(loss, torch.tensor([2 * 0.6931472]))


def test_quantiles_of_all_actions_are_the_quantiles_of_the_target() -> None:
    critic = QuantileCritic(network(2), num_quantiles=2)
    following = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])  # [B=1, M=2, K=2]
    target = critic.backup(following, torch.tensor([[10.0]]), torch.tensor([[0.5]]))
    assert target.tolist() == [[10.5, 11.0, 11.5, 12.0]]
    assert critic.levels.tolist() == [0.25, 0.75]


def test_trained_quantiles_are_those_of_the_target() -> None:
    critic = QuantileCritic(network(4), num_quantiles=4, huber_threshold=0.0)
    target = torch.linspace(0.0, 1.0, 1001).unsqueeze(0)
    quantiles = torch.zeros(1, 1, 4, requires_grad=True)
    optimizer = torch.optim.Adam([quantiles], lr=0.01)
    for _ in range(300):
        optimizer.zero_grad()
        critic.loss(quantiles, target).sum().backward()
        optimizer.step()
    expected = torch.tensor([0.125, 0.375, 0.625, 0.875])
    torch.testing.assert_close(quantiles.detach().flatten(), expected, atol=0.02, rtol=0.0)


def test_two_hot_classifies_the_transformed_target() -> None:
    critic = TwoHotCritic(network(9), SUPPORT)
    value = torch.tensor([[-20.0], [3.0]])
    target = critic.encode(value)
    assert ((target > 1e-4).sum(-1) <= 2).all()
    torch.testing.assert_close((target * SUPPORT).sum(-1), signed_hyperbolic(value[:, 0]))
    torch.testing.assert_close(critic.decode(target), value[:, 0], rtol=1e-4, atol=1e-4)


def test_two_hot_without_transform_has_the_unit_of_return() -> None:
    critic = TwoHotCritic(network(9), SUPPORT, transformed=False)
    assert critic.encode(torch.tensor([[2.0]])).argmax(-1).item() == 6
    assert critic.mean(torch.tensor([[0.0] * 6 + [50.0] + [0.0] * 2])).item() == pytest.approx(2.0)


def mixture(*batch: int) -> tuple[Tensor, Tensor, Tensor, d.Distribution]:
    logits, loc = torch.randn(*batch, 3), 5 * torch.randn(*batch, 3)
    scale = torch.rand(*batch, 3) + 0.1
    weights, components = d.Categorical(logits=logits), d.Normal(loc, scale)
    return logits, loc, scale, d.MixtureSameFamily(weights, components)


@pytest.mark.parametrize("batch", [(4,), (2, 3)], ids=str)
def test_a_mixture_is_as_unlikely_as_torch_says(batch: tuple) -> None:
    logits, loc, scale, distribution = mixture(*batch)
    sample = torch.randn(*batch, 6)
    expected = -distribution.log_prob(sample.movedim(-1, 0)).movedim(0, -1)
    torch.testing.assert_close(mixture_nll(sample, logits, loc, scale), expected)


def test_samples_of_a_mixture_have_its_mean_and_stddev() -> None:
    logits, loc, scale, distribution = mixture(2)
    sample = mixture_sample(logits, loc, scale, num_samples=100_000)
    torch.testing.assert_close(sample.mean(-1), distribution.mean, atol=0.05, rtol=0.0)
    torch.testing.assert_close(sample.std(-1), distribution.stddev, atol=0.05, rtol=0.0)


def test_a_sample_of_a_mixture_has_loc_and_scale_of_one_component() -> None:
    logits, loc = torch.tensor([[0.0, 0.0], [0.0, 50.0]]), torch.tensor([[0.0, 8.0], [1.0, -2.0]])
    scale = torch.tensor([[1e-6, 1.0], [1.0, 1e-6]])
    sample = mixture_sample(logits, loc, scale, num_samples=1000)
    first = sample[0] < 4
    torch.testing.assert_close(sample[0, first], torch.zeros(int(first.sum())), atol=1e-5, rtol=0)
    assert 400 < first.sum() < 600 and 0.8 < sample[0, ~first].std() < 1.2
    torch.testing.assert_close(sample[1], torch.full((1000,), -2.0), atol=1e-5, rtol=0)


def test_the_mixture_pays_the_likelihood_of_its_samples() -> None:
    critic = MixtureCritic(networks(6), num_components=2, init_scale=0.5)
    prediction, target = torch.randn(2, 4, 6), torch.randn(4, 10)  # [C, B, 3 K], [B, S]
    logits, loc, raw = prediction.chunk(3, -1)
    scale = torch.nn.functional.softplus(raw) * 0.5 / torch.tensor(2.0).log() + 1e-4
    weights = d.Categorical(logits=logits.unsqueeze(-2))
    components = d.Normal(loc.unsqueeze(-2), scale.unsqueeze(-2))
    nll = -d.MixtureSameFamily(weights, components).log_prob(target)
    torch.testing.assert_close(critic.loss(prediction, target), nll.mean(-1).sum(0))


def test_a_mixture_draws_so_many_samples_of_each_action() -> None:
    critic = MixtureCritic(network(6), num_components=2, num_samples=16)
    target = critic.backup(torch.randn(4, 3, 6), torch.zeros(4, 1), torch.ones(4, 1))
    assert target.shape == (4, 3 * 16)


# -- what they share ----------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("batch", [(4,), (2, 3)], ids=str)
@pytest.mark.parametrize("count", [1, 3])
def test_predictions_become_values_losses_and_errors_of_the_batch(
    name: str, batch: tuple, count: int
) -> None:
    critic = MAKERS[name](count)
    prediction = critic.predict(states(*batch))
    assert prediction.shape == (count, *batch, critic.num_outputs)
    target = critic.encode(torch.randn(*batch, 1))
    for number in (
        critic.value(prediction),
        critic.loss(prediction, target),
        critic.td_error(prediction, target),
        critic.decode(target),
    ):
        assert number.shape == batch and number.isfinite().all()


@EVERY
def test_what_is_encoded_is_decoded(name: str) -> None:
    value = torch.tensor([[-3.5], [0.25], [3.9]])
    critic = MAKERS[name](1)
    torch.testing.assert_close(
        critic.decode(critic.encode(value)), value[:, 0], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("name", ["c51", "two_hot"])
@pytest.mark.parametrize("size", [1e3, 1e30])
def test_a_return_beyond_the_support_falls_on_its_end(name: str, size: float) -> None:
    encoded = MAKERS[name](1).encode(torch.tensor([[-size], [size]]))
    expected = torch.zeros(2, 9)
    expected[0, 0] = expected[1, -1] = 1.0
    torch.testing.assert_close(encoded, expected)


@EVERY
def test_the_loss_of_an_ensemble_is_the_sum_of_its_members(name: str) -> None:
    critic = MAKERS[name](3)
    prediction, target = critic.predict(states(4)), critic.encode(torch.randn(4, 1))
    members = sum(critic.loss(member.unsqueeze(0), target) for member in prediction)
    torch.testing.assert_close(critic.loss(prediction, target), members)


@EVERY
def test_a_return_may_have_more_digits_than_the_networks(name: str) -> None:
    critic, td = MAKERS[name](2), states(4)
    td["value_target"] = torch.ones(4, 1, dtype=torch.float64)
    assert critic(td)["loss_qvalue"].isfinite().all()


@EVERY
def test_the_loss_trains_the_prediction_and_never_the_target(name: str) -> None:
    critic = MAKERS[name](2)
    prediction = critic.predict(states(4)).detach().requires_grad_()
    target = critic.encode(torch.randn(4, 1)).requires_grad_()
    critic.loss(prediction, target).sum().backward()
    assert prediction.grad.any() and target.grad is None
    assert not critic.td_error(prediction, target).requires_grad


@EVERY
def test_a_critic_alone_learns(name: str) -> None:
    critic, td = MAKERS[name](2), states(16)
    td["value_target"] = 3 * td["action"][:, :1]
    before = critic(td)["td_error"].mean().item()
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.03)
    for _ in range(150):
        optimizer.zero_grad()
        critic(td)["loss_qvalue"].mean().backward()
        optimizer.step()
    assert critic(td)["td_error"].mean().item() < 0.3 * before


@EVERY
@pytest.mark.parametrize("num_actions", [1, 5])
def test_the_mean_of_the_target_is_the_scalar_critic_s_target(name: str, num_actions: int) -> None:
    critic = MAKERS[name](3)
    if isinstance(critic, MixtureCritic):
        critic.num_samples = 100_000
    batch, inputs = transitions(4), states(4, num_actions)
    prediction = critic.predict(inputs)
    target = critic.target(batch, prediction, td0())
    scalar = ScalarCritic(network(1)).target(batch, critic.mean(prediction), td0())
    torch.testing.assert_close(critic.decode(target), scalar, atol=0.02, rtol=0.0)


@BOOTSTRAPPED
def test_each_action_is_judged_by_the_member_with_the_smallest_mean(name: str) -> None:
    critic = MAKERS[name](3)
    prediction = critic.predict(states(4, 5))
    chosen = critic.pessimistic(prediction)
    smallest = critic.mean(prediction).argmin(0)
    for b in range(4):
        for m in range(5):
            assert (chosen[b, m] == prediction[smallest[b, m], b, m]).all()
    torch.testing.assert_close(critic.mean(chosen), critic.value(prediction))


@BOOTSTRAPPED
def test_after_a_termination_only_the_reward_is_left(name: str) -> None:
    critic = MAKERS[name](2)
    target = critic.target(transitions(4), critic.predict(states(4, 5)), td0())
    certain = critic.encode(torch.full((4, 1), 0.5))
    torch.testing.assert_close(critic.decode(target)[1::2], critic.decode(certain)[1::2])
    if name == "c51":
        torch.testing.assert_close(target[1::2], certain[1::2])
    else:
        assert (target[1::2] == 0.5).all()


@pytest.mark.parametrize("batch", [(4,), (2, 3)], ids=str)
def test_reward_and_discount_are_those_of_n_step_data(batch: tuple) -> None:
    td = transitions(*batch, reward=2.0)
    td["steps_to_next_obs"] = torch.full((*batch, 1), 3)
    reward, discount = reward_and_discount(td, td0(0.5))
    assert (reward == 2.0).all()
    torch.testing.assert_close(discount, 0.125 * (~td["next", "terminated"]))
    assert (td["next", "reward"] == 2.0).all()


@EVERY
def test_copies_and_precisions_keep_the_numbers(name: str) -> None:
    critic, td = MAKERS[name](2), states(4)
    value = critic.value(critic.predict(td))
    copied = deepcopy(critic)
    assert (copied.value(copied.predict(td)) == value).all()
    double = deepcopy(critic).double()
    found = double.value(double.predict(td.to(torch.float64)))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, value.double(), atol=1e-4, rtol=1e-4)


# -- errors -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [CategoricalCritic, TwoHotCritic])
@pytest.mark.parametrize(
    ("support", "sentence"),
    [
        ([1.0], r"\[K\] with at least two atoms, .*, got shape \[1\]"),
        (torch.zeros(2, 2), r"at least two atoms, .*, got shape \[2, 2\]"),
        ([0.0, 1.0, 1.0], r"must be finite and increasing, got \[0.0, 1.0, 1.0\]"),
        ([0.0, float("inf")], "must be finite and increasing"),
    ],
    ids=["one", "matrix", "flat", "infinite"],
)
def test_an_impossible_support_is_refused(kind: type, support, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        kind(network(2), support)


def test_whole_numbers_are_a_support_and_stay_the_caller_s() -> None:
    given = torch.arange(3)
    critic = CategoricalCritic(network(3), given)
    assert critic.support.dtype == torch.float32 and given.dtype == torch.int64


def test_the_caller_may_use_the_support_for_something_else() -> None:
    given = torch.linspace(-1.0, 1.0, 3)
    critic = CategoricalCritic(network(3), given)
    given.zero_()
    assert critic.support.tolist() == [-1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda n: CategoricalCritic(n, SUPPORT), r"\[4, 9\], got \[4, 1\]; .* 9 atoms"),
        (lambda n: TwoHotCritic(n, SUPPORT), r"\[4, 9\], got \[4, 1\]; .* 9 atoms"),
        (QuantileCritic, r"\[4, 32\], got \[4, 1\]; .* 32 quantiles"),
        (MixtureCritic, r"\[4, 15\], got \[4, 1\]; .* 5 components .* three outputs"),
    ],
    ids=["c51", "two_hot", "quantile", "mixture"],
)
def test_a_network_with_a_wrong_number_of_outputs_is_refused(make, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make(network(1)).predict(states(4))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: QuantileCritic(network(1), num_quantiles=0), "num_quantiles must be at least 1"),
        (lambda: QuantileCritic(network(1), huber_threshold=-1.0), "huber_threshold must be at"),
        (lambda: MixtureCritic(network(1), num_components=0), "num_components must be at least 1"),
        (lambda: MixtureCritic(network(1), num_samples=0), "num_samples must be at least 1, got 0"),
        (lambda: MixtureCritic(network(1), init_scale=0.0), "init_scale must be > 0, got 0.0"),
        (lambda: MixtureCritic(network(1), min_scale=-1.0), "min_scale must be > 0, got -1.0"),
    ],
    ids=["quantiles", "huber", "components", "samples", "init_scale", "min_scale"],
)
def test_a_number_out_of_its_range_is_refused(make, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


@BOOTSTRAPPED
def test_values_of_several_states_are_refused(name: str) -> None:
    critic = MAKERS[name](1)
    critic.require_estimator(td0())
    estimator = TDLambdaEstimator(gamma=0.9, lmbda=0.5, value_network=None)
    sentence = f"{type(critic).__name__} needs the value estimator TD0, got TDLambdaEstimator: .*"
    with pytest.raises(ValueError, match=sentence):
        critic.require_estimator(estimator)


@pytest.mark.parametrize("make", [MAKERS["two_hot"], lambda count: ScalarCritic(network(1))])
def test_a_target_that_is_a_number_takes_every_estimator(make) -> None:
    make(1).require_estimator(TDLambdaEstimator(gamma=0.9, lmbda=0.5, value_network=None))


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
