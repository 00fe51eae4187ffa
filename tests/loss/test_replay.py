"""Prioritized replay: the priority written, the weight read."""

from __future__ import annotations

import functools
import sys
from typing import Any

import pytest
import torch
from tensordict import NestedKey
from torch import Tensor
from torchrl.data import (
    LazyTensorStorage,
    PrioritizedSliceSampler,
    TensorDictPrioritizedReplayBuffer,
    TensorDictReplayBuffer,
)
from torchrl.data.replay_buffers.samplers import prioritized

from tests.loss.builders import loss_entries, make_batch, make_loss, move_policy, seeded

SHAPES = [(4,), (4, 3), (2, 5)]


class Tree:
    """What TorchRL's C++ extension does, for where it does not load beside the installed torch."""

    def __init__(self, capacity: int, reduce: str) -> None:
        self.reduce = reduce
        self.leaves = torch.full((capacity,), 0.0 if reduce == "sum" else float("inf"))

    def __getitem__(self, index: Any) -> Any:
        leaves = self.leaves[index]
        return leaves if isinstance(index, Tensor) else leaves.numpy()

    def __setitem__(self, index: Any, value: Tensor) -> None:
        self.leaves[index] = torch.as_tensor(value, dtype=self.leaves.dtype)

    def query(self, start: int, stop: int) -> float:
        return getattr(self.leaves[start:stop], self.reduce)().item()

    def scan_lower_bound(self, mass: Tensor) -> Tensor:
        return torch.searchsorted(self.leaves.cumsum(0), torch.as_tensor(mass)).clamp(
            max=len(self.leaves) - 1
        )


@pytest.fixture
def segment_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    for reduce in ("Sum", "Min"):
        for dtype in ("Fp32", "Fp64"):
            name = f"{reduce}SegmentTree{dtype}"
            if getattr(prioritized, name) is None:
                tree = functools.partial(Tree, reduce=reduce.lower())
                monkeypatch.setattr(prioritized, name, tree)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_priority_is_the_largest_error_of_each_transition(shape: tuple, reduction: str) -> None:
    loss, batch = make_loss(reduction=reduction, loss_function="l1"), make_batch(*shape)
    loss(batch)
    assert batch["td_error"].shape == shape and not batch["td_error"].requires_grad
    _, readings = seeded(loss.qvalue_loss, batch)
    assert (batch["td_error"] == readings["td_error"]).all() and (batch["td_error"] > 0).all()


def test_the_priority_is_the_loss_of_one_of_two_equal_critics() -> None:
    loss, batch = make_loss(loss_function="l1", reduction="none"), make_batch(4)
    for params in (loss.qvalue_network_params, loss.target_qvalue_network_params):
        params.data.apply_(lambda p: p.copy_(p[:1].expand_as(p)))  # both critics the same
    losses = loss(batch)
    torch.testing.assert_close(2 * batch["td_error"], losses["loss_qvalue"])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_weights_weigh_the_critic_and_nothing_else(shape: tuple) -> None:
    batch, weight = make_batch(*shape), torch.rand(*shape)
    loss = move_policy(make_loss(reduction="none"))
    plain = loss_entries(seeded(loss, batch.clone()))
    batch["priority_weight"] = weight
    weighted = {}
    for loss.reduction in ("none", "sum", "mean"):
        weighted[loss.reduction] = loss_entries(seeded(loss, batch.clone()))
    each = weight * plain["loss_qvalue"]
    torch.testing.assert_close(weighted["none"]["loss_qvalue"], each)
    torch.testing.assert_close(weighted["sum"]["loss_qvalue"], each.sum())
    torch.testing.assert_close(weighted["mean"]["loss_qvalue"], each.sum() / weight.sum())
    for key in set(plain) - {"loss_qvalue"}:
        torch.testing.assert_close(weighted["none"][key], plain[key])
        torch.testing.assert_close(weighted["mean"][key], plain[key].mean())


def test_the_weights_can_be_ignored() -> None:
    loss, batch = make_loss(use_prioritized_weights=False), make_batch(4)
    expected = seeded(loss, batch.clone())
    batch["priority_weight"] = torch.rand(4)
    assert (seeded(loss, batch) == expected).all()


@pytest.mark.parametrize("key", ["my_weight", ("info", "weight")], ids=str)
def test_the_weights_are_read_where_the_loss_is_told(key: NestedKey) -> None:
    loss, batch = make_loss(), make_batch(4)
    loss.set_keys(priority_weight=key)
    plain = seeded(loss, batch.clone())
    batch[key] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert seeded(loss, batch)["loss_qvalue"] != plain["loss_qvalue"]


def test_masked_transitions_count_neither_with_nor_without_weights() -> None:
    loss, batch = make_loss(), make_batch(2, 3)
    batch["next", "terminated"][:] = True
    batch["priority_weight"] = torch.rand(2, 3)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    kept = batch[mask]
    batch["collector", "mask"] = mask.unsqueeze(-1)
    torch.testing.assert_close(loss.qvalue_loss(batch)[0], loss.qvalue_loss(kept)[0])


def test_a_prioritized_buffer_takes_the_priorities_and_gives_the_weights(
    segment_trees: None,
) -> None:
    buffer = TensorDictPrioritizedReplayBuffer(
        alpha=0.7, beta=0.5, storage=LazyTensorStorage(20), batch_size=6, priority_key="td_error"
    )
    buffer.extend(make_batch(20))
    loss = make_loss()
    for _ in range(3):
        batch = buffer.sample()
        loss(batch)
        buffer.update_tensordict_priority(batch)
    weight = buffer.sample()["priority_weight"]
    assert weight.shape == (6,) and weight.unique().numel() > 1


def test_slices_of_a_prioritized_buffer_are_priced_step_by_step(segment_trees: None) -> None:
    batch = make_batch(4, 5)
    batch["episode"] = torch.arange(4).unsqueeze(-1).expand(4, 5).clone()
    sampler = PrioritizedSliceSampler(
        max_capacity=20, alpha=0.7, beta=0.5, slice_len=3, traj_key="episode"
    )
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(20), sampler=sampler, batch_size=6, priority_key="td_error"
    )
    buffer.extend(batch.reshape(-1))
    sample = buffer.sample()
    assert make_loss()(sample)["loss_qvalue"].isfinite()
    assert sample["td_error"].shape == sample["priority_weight"].shape == (6,)
    buffer.update_tensordict_priority(sample)


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
