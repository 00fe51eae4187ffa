from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.data import Bounded
from torchrl.modules import ProbabilisticActor, TanhNormal
from torchrl.objectives import HardUpdate, SoftUpdate

from mpo_torchrl import MPOLoss
from mpo_torchrl.modules import make_actor, make_critics
from mpo_torchrl.targets import FusedSoftUpdate, PeriodicUpdate
from tests.loss.builders import shared_encoder_loss

SPEC = Bounded(-1.0, 1.0, shape=(2,))


def make_loss() -> MPOLoss:
    torch.manual_seed(0)
    cells = {"num_cells": (8,)}
    return MPOLoss(make_actor(3, SPEC, **cells), make_critics(3, SPEC, **cells))


def move(loss: MPOLoss) -> None:
    for parameter in loss.network_parameters():
        parameter.data.add_(torch.randn_like(parameter))


def shared_loss(num_critics: int, as_list: bool) -> MPOLoss:
    """Actor and critics on one encoder."""
    torch.manual_seed(0)
    return shared_encoder_loss(num_critics, as_list)[0]


@pytest.mark.parametrize(
    "make",
    [make_loss, partial(shared_loss, 1, False), partial(shared_loss, 2, True)],
    ids=["apart", "on one encoder", "a list on one encoder"],
)
def test_targets_move_exactly_as_with_soft_update(make: Callable[[], MPOLoss]) -> None:
    states = []
    for updater in (SoftUpdate, FusedSoftUpdate):
        loss = make()
        targets = updater(loss, tau=0.1)
        for _ in range(3):
            move(loss)
            targets.step()
        states.append(loss.state_dict())
    for key, value in states[0].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, states[1][key]), key


def test_every_target_moves() -> None:
    loss = make_loss()
    targets = FusedSoftUpdate(loss, tau=0.1)
    before = loss.target_actor_network_params.clone(), loss.target_qvalue_network_params.clone()
    move(loss)
    targets.step()
    after = loss.target_actor_network_params, loss.target_qvalue_network_params
    for old, new in zip(before, after, strict=True):
        for key, value in new.items(True, True):
            is_buffer = "half_range" in key or "middle" in key
            assert torch.equal(value, old.get(key)) == is_buffer, key


def copies(targets, loss: MPOLoss, calls: int) -> list[int]:
    """The calls, counted from 1, after which the targets equal the networks."""
    found = []
    for call in range(1, calls + 1):
        move(loss)
        targets.step()
        source, target = loss.qvalue_network_params, loss.target_qvalue_network_params
        equal = [torch.equal(value, target.get(key)) for key, value in source.items(True, True)]
        if all(equal):
            found.append(call)
    return found


@pytest.mark.parametrize(("period", "expected"), [(1, [*range(1, 10)]), (3, [3, 6, 9]), (5, [5])])
def test_a_copy_comes_at_every_period_th_call(period: int, expected: list[int]) -> None:
    loss = make_loss()
    assert copies(PeriodicUpdate(loss, period=period), loss, 9) == expected


def test_torchrl_copies_one_call_later() -> None:
    loss = make_loss()
    assert copies(HardUpdate(loss, value_network_update_interval=3), loss, 9) == [4, 8]


def test_the_actor_is_copied_too() -> None:
    loss = make_loss()
    targets = PeriodicUpdate(loss, period=1)
    move(loss)
    targets.step()
    for key, value in loss.actor_network_params.items(True, True):
        assert torch.equal(value, loss.target_actor_network_params.get(key))


def test_the_count_survives_a_file() -> None:
    loss = make_loss()
    first, second = PeriodicUpdate(loss, period=3), PeriodicUpdate(loss, period=3)
    assert copies(first, loss, 2) == []
    second.load_state_dict(first.state_dict())
    assert copies(second, loss, 4) == [1, 4]


def test_a_period_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="period must be at least 1, got 0"):
        PeriodicUpdate(make_loss(), period=0)


def loss_with(network: nn.Module) -> MPOLoss:
    """A loss whose actor takes mean and stddev from the network."""
    actor = ProbabilisticActor(
        TensorDictModule(network, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=TanhNormal,
        spec=SPEC,
    )
    return MPOLoss(actor, make_critics(3, SPEC, num_cells=(8,)))


UPDATERS = pytest.mark.parametrize(
    "make_updater",
    [partial(PeriodicUpdate, period=1), partial(FusedSoftUpdate, tau=0.1)],
    ids=["PeriodicUpdate", "FusedSoftUpdate"],
)


@UPDATERS
def test_layers_may_size_themselves_after_the_updater_is_made(make_updater) -> None:
    network = nn.Sequential(nn.LazyLinear(4), NormalParamExtractor())
    loss = loss_with(network)
    targets = make_updater(loss)
    network(torch.randn(16, 3))
    targets.step()
    key = ("module", "0", "module", "0", "weight")
    assert torch.equal(loss.target_actor_network_params.get(key), network[0].weight)


@UPDATERS
def test_buffers_are_copied_as_they_are(make_updater) -> None:
    layers = [nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 4), NormalParamExtractor()]
    network = nn.Sequential(*layers)
    loss = loss_with(network)
    targets = make_updater(loss)
    network(torch.randn(16, 3) + 2)
    targets.step()
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        key = ("module", "0", "module", "1", name)
        source = loss.actor_network_params.get(key)
        assert source.any()
        assert torch.equal(loss.target_actor_network_params.get(key), source)


if __name__ == "__main__":
    pytest.main([__file__])
