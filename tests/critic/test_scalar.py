from __future__ import annotations

import sys

import pytest
import torch
from tensordict import NestedKey, TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.modules import MLP, ValueOperator
from torchrl.objectives.value import TD0Estimator

from mpo_torchrl.critic import ScalarCritic

O, A = 3, 2  # noqa: E741


def network(
    in_keys: tuple[NestedKey, NestedKey] = ("observation", "action"),
    out_key: NestedKey = "state_action_value",
    outputs: int = 1,
) -> ValueOperator:
    mlp = MLP(in_features=O + A, out_features=outputs, num_cells=[8])
    return ValueOperator(mlp, in_keys=list(in_keys), out_keys=[out_key])


def states(*batch: int, dtype: torch.dtype = torch.float32) -> TensorDict:
    entries = {"observation": torch.randn(*batch, O), "action": torch.rand(*batch, A)}
    return TensorDict(entries, batch_size=batch).to(dtype)


def networks(hooked: bool) -> list[ValueOperator]:
    """Two networks; hooked ones are called as modules."""
    pair = [network(), network()]
    if hooked:
        pair[0].register_forward_hook(lambda module, args, output: None)
    return pair


def stacked(critic: ScalarCritic) -> TensorDict:
    return TensorDict.from_modules(*critic.networks)


# -- the equations ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss_function", "expected"),
    [("l2", [0.25 + 4.0]), ("l1", [0.5 + 2.0]), ("smooth_l1", [0.125 + 1.5])],
)
def test_the_loss_sums_the_distances_of_the_ensemble(
    loss_function: str, expected: list[float]
) -> None:
    critic = ScalarCritic(network(), loss_function=loss_function)
    prediction, target = torch.tensor([[2.5], [4.0]]), torch.tensor([2.0])  # [C=2, B=1], [B]
    torch.testing.assert_close(critic.loss(prediction, target), torch.tensor(expected))


def test_the_value_is_the_smallest_of_the_ensemble() -> None:
    prediction = torch.tensor([[1.0, 5.0], [2.0, -3.0]])  # [C=2, B=2]
    assert ScalarCritic(network()).value(prediction).tolist() == [1.0, -3.0]


def test_the_error_is_the_largest_of_the_ensemble() -> None:
    prediction, target = torch.tensor([[1.0, 5.0], [2.0, -3.0]]), torch.tensor([3.0, 0.0])
    assert ScalarCritic(network()).td_error(prediction, target).tolist() == [2.0, 5.0]


def test_the_target_is_the_mean_over_actions_of_the_smallest_values() -> None:
    prediction = torch.tensor([[[1.0, 5.0]], [[2.0, -3.0]]])  # [C=2, B=1, M=2]: 1 and -3
    no = torch.zeros(1, 1, dtype=torch.bool)
    following = TensorDict(reward=torch.tensor([[0.5]]), done=no, terminated=no, batch_size=1)
    estimator = TD0Estimator(gamma=0.9, value_network=None)
    target = ScalarCritic(network()).target(
        TensorDict(next=following, batch_size=1), prediction, estimator
    )
    torch.testing.assert_close(target, torch.tensor([0.5 - 0.9]))


@pytest.mark.parametrize("loss_function", ["l2", "l1", "smooth_l1"])
def test_a_right_prediction_costs_nothing(loss_function: str) -> None:
    critic = ScalarCritic(network(), loss_function=loss_function)
    assert (critic.loss(torch.ones(3, 4), torch.ones(4)) == 0).all()


def test_the_loss_trains_the_prediction_and_never_the_target() -> None:
    critic = ScalarCritic(network())
    prediction = torch.randn(2, 4, requires_grad=True)
    target = torch.randn(4, requires_grad=True)
    critic.loss(prediction, target).sum().backward()
    torch.testing.assert_close(prediction.grad, 2 * (prediction - target).detach())
    assert target.grad is None
    assert not critic.td_error(prediction, target).requires_grad


# -- alone --------------------------------------------------------------------------------


@pytest.mark.parametrize("num_networks", [1, 3])
@pytest.mark.parametrize("batch", [(4,), (2, 3)], ids=str)
def test_a_critic_alone_writes_its_loss_and_error(batch: tuple, num_networks: int) -> None:
    critic = ScalarCritic([network() for _ in range(num_networks)])
    td = states(*batch)
    td["value_target"] = torch.zeros(*batch, 1)
    written = critic(td)
    values = torch.stack([n(td.copy())["state_action_value"].squeeze(-1) for n in critic.networks])
    torch.testing.assert_close(written["loss_qvalue"], values.square().sum(0))
    torch.testing.assert_close(written["td_error"], values.abs().amax(0).detach())
    written["loss_qvalue"].mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in critic.parameters())


def test_a_critic_alone_learns() -> None:
    critic = ScalarCritic([network(), network()])
    td = states(16)
    td["value_target"] = td["action"][:, :1]
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.02)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = critic(td)["loss_qvalue"].mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


# -- under given parameters ---------------------------------------------------------------


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("batch", [(4,), (2, 3), ()], ids=str)
def test_given_parameters_take_the_place_of_the_networks(batch: tuple, hooked: bool) -> None:
    own, other = (ScalarCritic(networks(hooked)) for _ in range(2))
    td = states(*batch)
    torch.testing.assert_close(own.predict(td, stacked(other)), other.predict(td))
    assert not torch.allclose(own.predict(td), other.predict(td))


def test_a_single_set_of_parameters_needs_no_dimension() -> None:
    own, other = ScalarCritic(network()), ScalarCritic(network())
    params = TensorDict.from_module(other.networks[0])
    td = states(4)
    assert own.predict(td, params).shape == (1, 4)
    torch.testing.assert_close(own.predict(td, params), other.predict(td))


@pytest.mark.parametrize("hooked", [False, True])
def test_the_inputs_stay_what_they_were(hooked: bool) -> None:
    critic, td = ScalarCritic(networks(hooked)), states(4)
    before = td.clone()
    for params in (None, stacked(critic)):
        critic.predict(td, params)
        assert set(td.keys()) == set(before.keys()) and (td == before).all()


def test_inputs_may_come_without_a_tensordict() -> None:
    critic, td = ScalarCritic([network(), network()]), states(4, 5)
    inputs = {key: td[key] for key in ("observation", "action")}
    value = critic.predict(inputs, stacked(critic), torch.Size([4, 5]))
    torch.testing.assert_close(value, critic.predict(td))


@pytest.mark.parametrize("key", ["q", ("critic", "q")], ids=str)
def test_keys_may_be_nested(key: NestedKey) -> None:
    names = (("agent", "state"), ("agent", "act"))
    critic = ScalarCritic([network(names, key) for _ in range(2)], value_key=key)
    td = TensorDict(batch_size=4)
    td[names[0]], td[names[1]] = torch.randn(4, O), torch.rand(4, A)
    assert critic.in_keys == list(names)
    torch.testing.assert_close(critic.predict(td, stacked(critic)), critic.predict(td))


def test_a_network_may_write_more_than_its_value() -> None:
    class WithFeatures(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(O + A, 8), nn.Linear(8, 1)

        def forward(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
            features = self.body(torch.cat([observation, action], -1)).tanh()
            return features, self.head(features)

    keys = ["features", "state_action_value"]
    critic = ScalarCritic(TensorDictModule(WithFeatures(), ["observation", "action"], keys))
    td = states(4)
    params = TensorDict.from_module(critic.networks[0])
    torch.testing.assert_close(critic.predict(td, params), critic.predict(td))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_values_keep_the_precision_of_the_networks(dtype: torch.dtype) -> None:
    critic, td = ScalarCritic([network(), network()]).to(dtype), states(4, dtype=dtype)
    assert critic.predict(td).dtype == dtype
    for hidden in (None, torch.bfloat16):
        assert critic.predict(td, stacked(critic), hidden_dtype=hidden).dtype == dtype


def test_gradients_reach_the_parameters_that_were_given() -> None:
    critic = ScalarCritic([network(), network()])
    params = (
        stacked(ScalarCritic([network(), network()]))
        .detach()
        .apply(lambda p: p.clone().requires_grad_())
    )
    critic.predict(states(4), params).sum().backward()
    assert all(p.grad is not None for p in params.values(True, True))
    assert all(p.grad is None for p in critic.parameters())


# -- errors -------------------------------------------------------------------------------


def test_an_unknown_loss_function_is_refused() -> None:
    with pytest.raises(ValueError, match="must be 'l2', 'l1' or 'smooth_l1', got 'mse'"):
        ScalarCritic(network(), loss_function="mse")


def test_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one network, got an empty list"):
        ScalarCritic([])


@pytest.mark.parametrize(
    "given", [nn.Linear(2, 1), [network(), nn.Linear(2, 1)]], ids=["one", "list"]
)
def test_a_network_that_is_no_tensordict_module_is_refused(given) -> None:
    with pytest.raises(TypeError, match="must be a TensorDict module .*ValueOperator, got Linear"):
        ScalarCritic(given)


@pytest.mark.parametrize("alone", [True, False])
def test_values_of_another_shape_are_refused(alone: bool) -> None:
    critic = ScalarCritic(network(outputs=2))
    params = None if alone else TensorDict.from_module(critic.networks[0])
    with pytest.raises(ValueError, match=r"\[\*B, 1\] = \[4, 1\], got \[4, 2\]; .* one output"):
        critic.predict(states(4), params)


@pytest.mark.parametrize("alone", [True, False])
def test_a_value_under_another_key_is_refused(alone: bool) -> None:
    critic = ScalarCritic(network(out_key="q"))
    params = None if alone else TensorDict.from_module(critic.networks[0])
    with pytest.raises(KeyError, match="must write the key 'state_action_value', it wrote .*'q'"):
        critic.predict(states(4), params)


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
