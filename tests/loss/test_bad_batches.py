"""A bad batch ends in one sentence that names what is wrong with it."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
import torch
from tensordict import LazyStackedTensorDict, TensorDict

from tests.loss.builders import (
    POLICIES,
    A,
    make_batch,
    make_loss,
    seeded,
)

ENTRIES = ["observation", "action", *(("next", k) for k in ("observation", "reward", "done"))]


@pytest.mark.parametrize("key", ENTRIES, ids=str)
def test_a_missing_entry_is_named(key: Any) -> None:
    batch = make_batch(4)
    del batch[key]
    name = re.escape(repr(key))
    with pytest.raises(KeyError, match=f"the batch has no entry {name}, it has .* set_keys"):
        make_loss()(batch)


def test_a_renamed_entry_that_is_missing_is_named() -> None:
    loss = make_loss()
    loss.set_keys(reward=("info", "gain"))
    with pytest.raises(KeyError, match=r"no entry \('next', 'info', 'gain'\)"):
        loss(make_batch(4))


@pytest.mark.parametrize("shape", [(0,), (4, 0), (0, 3)], ids=str)
def test_an_empty_batch_is_refused(shape: tuple) -> None:
    with pytest.raises(ValueError, match="the batch is empty.*at least one transition"):
        make_loss()(make_batch(*shape))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("size", [1, 3])
def test_actions_of_another_size_are_refused(policy: str, size: int) -> None:
    with pytest.raises(
        ValueError, match=rf"actions of shape \[4, {size}\] under 'action'.*\[4, 2\]"
    ):
        make_loss(policy)(make_batch(4, action_size=size))


def test_actions_without_their_last_dimension_are_refused() -> None:
    batch = make_batch(4)
    batch["action"] = batch["action"][:, 0]
    with pytest.raises(ValueError, match=r"actions of shape \[4\] under 'action'.*\[4, 2\]"):
        make_loss()(batch)


@pytest.mark.parametrize("shape", [(4,), (4, 2)], ids=str)
def test_rewards_of_another_shape_are_refused(shape: tuple) -> None:
    batch = make_batch(4)
    batch["next", "reward"] = torch.zeros(shape)
    with pytest.raises(ValueError, match=r"reward under \('next', 'reward'\) must be .* \[4, 1\]"):
        make_loss()(batch)


@pytest.mark.parametrize("shape", [(4,), (4, 2)], ids=str)
@pytest.mark.parametrize("flag", ["done", "terminated"])
def test_flags_of_another_shape_are_refused(flag: str, shape: tuple) -> None:
    batch = make_batch(4)
    batch["next", flag] = torch.zeros(shape, dtype=torch.bool)
    with pytest.raises(ValueError, match=rf"flags under \('next', '{flag}'\) must be .* \[4, 1\]"):
        make_loss()(batch)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "key", ["observation", "action", ("next", "observation"), ("next", "reward")], ids=str
)
def test_numbers_that_are_not_finite_are_refused_in_the_first_batch(
    key: Any, number: float
) -> None:
    batch, loss = make_batch(4), make_loss()
    batch[key].view(-1)[0] = number
    before = [p.detach().clone() for p in loss.parameters()]
    name = re.escape(repr(key))
    with pytest.raises(
        ValueError, match=f"1 of the [0-9]+ numbers under {name} are NaN or infinite"
    ):
        loss(batch)
    assert "td_error" not in batch.keys()  # no priority is poisoned
    assert all((p == q).all() for p, q in zip(before, loss.parameters(), strict=True))
    with pytest.raises(ValueError, match="NaN or infinite"):
        loss(batch)


def test_weights_that_are_not_finite_are_refused_where_they_are_read() -> None:
    batch = make_batch(4)
    batch["priority_weight"] = torch.full((4,), float("nan"))
    with pytest.raises(ValueError, match="4 of the 4 numbers under 'priority_weight' are NaN"):
        make_loss()(batch)
    assert make_loss(use_prioritized_weights=False)(batch)["loss_qvalue"].isfinite()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_weights_may_have_a_last_dimension_of_one(reduction: str) -> None:
    loss, batch = make_loss(reduction=reduction), make_batch(4)
    batch["priority_weight"] = torch.rand(4)
    expected = seeded(loss, batch.copy())["loss_qvalue"]
    batch["priority_weight"] = batch["priority_weight"].unsqueeze(-1)
    torch.testing.assert_close(seeded(loss, batch)["loss_qvalue"], expected)


def test_weights_of_another_shape_are_refused() -> None:
    batch = make_batch(4)
    batch["priority_weight"] = torch.rand(4, 2)
    with pytest.raises(ValueError, match=r"'priority_weight' must be .* \[4\], or .* \[4, 2\]"):
        make_loss()(batch)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("masked", [False, True])
def test_without_any_weight_there_is_nothing_to_learn(masked: bool, reduction: str) -> None:
    loss, batch = make_loss(reduction=reduction), make_batch(4)
    batch["priority_weight"] = torch.zeros(4)
    if masked:
        batch["priority_weight"][3] = 1.0
        batch["collector", "mask"] = torch.arange(4) < 3
    value = loss.qvalue_loss(batch)[0]
    assert (value == 0).all()
    gradients = torch.autograd.grad(value.sum(), list(loss.qvalue_network_params.parameters()))
    assert all((gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("key", ["done", "terminated"])
def test_flags_that_are_no_booleans_are_refused(key: str, dtype: torch.dtype) -> None:
    batch = make_batch(4)
    batch["next", key] = batch["next", key].to(dtype)
    name = re.escape(repr(("next", key)))
    with pytest.raises(ValueError, match=f"flags under {name} must be booleans, got {dtype}"):
        make_loss()(batch)


@pytest.mark.parametrize("mask", [torch.ones(4), torch.ones(4, 3).bool(), torch.ones(5).bool()])
def test_a_mask_of_another_shape_or_kind_is_refused(mask: torch.Tensor) -> None:
    batch = TensorDict(make_batch(4, 2).to_dict(), [])
    batch["collector", "mask"] = mask
    with pytest.raises(ValueError, match="mask of a batch must be boolean.*'observation'"):
        make_loss()(batch)


PARTS = pytest.mark.parametrize("part", ["e_step", "temperature_loss", "actor_loss", "alpha_loss"])


@PARTS
def test_a_part_alone_names_the_state_that_is_missing(part: str) -> None:
    for e_step_critic, key in (("online", "observation"), ("next", ("next", "observation"))):
        loss = make_loss(e_step_critic=e_step_critic)
        with pytest.raises(KeyError, match=f"no entry {re.escape(repr(key))}"):
            getattr(loss, part)(make_batch(4).exclude(key))


@PARTS
def test_a_part_alone_needs_no_reward(part: str) -> None:
    getattr(make_loss(), part)(make_batch(4).exclude("action", ("next", "reward")))


def test_the_look_at_the_first_batch_is_the_only_one() -> None:
    loss, batch = make_loss(), make_batch(4)
    loss(batch)
    batch["next", "reward"][0] = float("nan")
    assert loss(batch)["loss_qvalue"].isnan()


def test_an_e_step_without_the_sample_before_squashing_is_refused() -> None:
    batch = make_batch(4)
    batch["e_step"] = TensorDict(action=torch.zeros(4, 3, A), batch_size=4)
    with pytest.raises(ValueError, match="fits the samples before the squashing.*'base_action'"):
        make_loss("tanh_normal")(batch)


def test_a_lazy_stack_with_a_mask_is_the_batch_it_stacks() -> None:
    loss, batch = make_loss(), make_batch(4, 3)
    batch["collector", "mask"] = torch.rand(4, 3) > 0.3
    lazy = LazyStackedTensorDict.lazy_stack(list(batch.unbind(0)))
    torch.testing.assert_close(seeded(loss, lazy), seeded(loss, batch))


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
