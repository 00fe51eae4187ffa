from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from tensordict import NestedKey, TensorDict
from torchrl.data import Bounded, OneHot, TensorSpec, Unbounded
from torchrl.modules import ValueOperator

from mpo_torchrl.critic import ScalarCritic
from mpo_torchrl.modules import (
    ActionValueMLP,
    JoinAction,
    ResidualBlock,
    make_critics,
    make_discrete_critics,
    make_recurrent_critics,
)

LOW, HIGH = torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 10.0])
SPEC = Bounded(LOW, HIGH)


def pairs(*batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(*batch, 3), LOW + (HIGH - LOW) * torch.rand(*batch, 2)


# -- how an action enters -----------------------------------------------------------------


def test_actions_enter_as_fractions_of_half_their_range() -> None:
    joined = JoinAction(SPEC)(torch.zeros(3, 1), torch.stack([LOW, (LOW + HIGH) / 2, HIGH]))
    expected = torch.tensor([[0.0, -1.0, -1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    torch.testing.assert_close(joined, expected)


def test_what_lies_outside_counts_as_the_bound() -> None:
    network, (observation, _) = ActionValueMLP(3, SPEC, num_cells=(8,)), pairs(4)
    for inside, outside in ((LOW, LOW - 7.0), (HIGH, HIGH + 0.1)):
        values = (network(observation, action.expand(4, 2)) for action in (inside, outside))
        torch.testing.assert_close(*values)


def test_inside_its_bounds_the_action_matters() -> None:
    network, (observation, action) = ActionValueMLP(3, SPEC, num_cells=(8,)), pairs(4)
    action.requires_grad_()
    network(observation, action).sum().backward()
    assert (action.grad != 0).all()


@pytest.mark.parametrize("spec", [Unbounded(2), Bounded(LOW, torch.full((2,), torch.inf))])
def test_without_bounds_nothing_is_clipped(spec) -> None:
    action = torch.tensor([[-50.0, 70.0]])
    torch.testing.assert_close(JoinAction(spec)(torch.zeros(1, 0), action), action)


@pytest.mark.parametrize("spec_dtype", [torch.float32, torch.float64], ids=str)
def test_the_network_has_the_default_precision_whatever_the_spec(spec_dtype: torch.dtype) -> None:
    spec = Bounded(LOW.to(spec_dtype), HIGH.to(spec_dtype), dtype=spec_dtype)
    network = ActionValueMLP(3, spec, num_cells=(8,))
    assert network(*pairs(4)).dtype == torch.float32
    assert {b.dtype for b in network.buffers()} == {torch.float32}


# -- the networks -------------------------------------------------------------------------


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("batch", [(), (4,), (2, 3)], ids=str)
def test_there_is_one_value_for_each_action(batch: tuple, layer_norm: bool) -> None:
    network = ActionValueMLP(3, SPEC, num_cells=(8, 8), layer_norm=layer_norm)
    assert network(*pairs(*batch)).shape == (*batch, 1)


@pytest.mark.parametrize("networks", [{}, {"layer_norm": False}, {"num_blocks": 2}], ids=str)
def test_the_ensemble_says_what_its_networks_say(networks: dict) -> None:
    critics = make_critics(3, SPEC, num_critics=3, num_cells=(8, 8), **networks)
    observation, action = pairs(4)
    td = TensorDict(observation=observation, action=2 * action, batch_size=4)
    critic = ScalarCritic(critics)
    params = TensorDict.from_modules(*critics)
    torch.testing.assert_close(critic.predict(td, params), critic.predict(td))


@pytest.mark.parametrize("num_critics", [1, 2, 5])
def test_critics_start_from_different_draws(num_critics: int) -> None:
    critics = make_critics(3, SPEC, num_critics=num_critics, num_cells=(8,))
    assert len(critics) == num_critics and all(type(c) is ValueOperator for c in critics)
    observation, action = pairs(4)
    values = [c.module(observation, action) for c in critics]
    assert len({value[0].item() for value in values}) == num_critics


@pytest.mark.parametrize("action_key", ["act", ("agent", "act")], ids=str)
@pytest.mark.parametrize("in_key", ["state", ("agent", "state")], ids=str)
def test_keys_may_be_nested(in_key: NestedKey, action_key: NestedKey) -> None:
    (critic,) = make_critics(3, SPEC, num_critics=1, in_key=in_key, action_key=action_key)
    td = TensorDict(batch_size=4)
    td[in_key], td[action_key] = pairs(4)
    assert critic(td)["state_action_value"].shape == (4, 1)


@pytest.mark.parametrize(
    ("make", "spec"),
    [(make_critics, SPEC), (make_recurrent_critics, SPEC), (make_discrete_critics, OneHot(2))],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_critic_has_the_residual_blocks_asked_for(make: Callable, spec: TensorSpec) -> None:
    for network in make(3, spec, num_critics=2, num_cells=(8,), num_blocks=3):
        assert sum(isinstance(module, ResidualBlock) for module in network.modules()) == 3


@pytest.mark.parametrize("num_critics", [0, -1])
def test_fewer_than_one_critic_is_refused(num_critics: int) -> None:
    with pytest.raises(ValueError, match=f"num_critics must be at least 1, got {num_critics}"):
        make_critics(3, SPEC, num_critics=num_critics)


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
