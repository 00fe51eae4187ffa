"""What the loss reads and writes, under which names."""

from __future__ import annotations

import sys

import pytest
import torch
from tensordict import NestedKey
from torchrl.data import Bounded

from mpo_torchrl import MPOLoss
from tests.loss.builders import (
    DUALS,
    POLICIES,
    SPEC,
    A,
    loss_entries,
    make_actor,
    make_batch,
    make_critic,
    make_loss,
    seeded,
    trained_groups,
    without_spec,
)

NESTED: dict[str, NestedKey] = {
    "observation": ("agent", "state"),
    "action": ("agent", "act"),
    "reward": ("agent", "reward"),
    "done": ("agent", "done"),
    "terminated": ("agent", "terminated"),
}
FLAT: dict[str, NestedKey] = {key: f"my_{key}" for key in NESTED}


def renamed_loss(names: dict[str, NestedKey], policy: str = "gaussian", **kwargs) -> MPOLoss:
    keys = {"in_key": names["observation"]}
    actor = make_actor(policy, **keys, out_key=names["action"])
    critics = [make_critic(**keys, action_key=names["action"]) for _ in range(2)]
    loss = MPOLoss(actor, critics, num_action_samples=5, **kwargs)
    loss.set_keys(**{key: names[key] for key in ("reward", "done", "terminated")})
    return loss


@pytest.mark.parametrize("names", [FLAT, NESTED], ids=["flat", "nested"])
@pytest.mark.parametrize("shape", [(4,), (2, 3)], ids=str)
@pytest.mark.parametrize("policy", POLICIES)
def test_names_change_no_number(policy: str, shape: tuple, names: dict[str, NestedKey]) -> None:
    torch.manual_seed(0)
    expected = seeded(make_loss(policy), seeded(make_batch, *shape))
    torch.manual_seed(0)
    loss = renamed_loss(names, policy)
    losses = seeded(loss, seeded(lambda *s: make_batch(*s, names=names), *shape))
    for key in expected.keys():
        torch.testing.assert_close(losses[key], expected[key], msg=key)


@pytest.mark.parametrize("names", [FLAT, NESTED], ids=["flat", "nested"])
def test_in_keys_are_what_the_batch_must_hold(names: dict[str, NestedKey]) -> None:
    loss, batch = renamed_loss(names), make_batch(4, names=names)
    assert set(loss.in_keys) == set(batch.keys(True, True))
    loss(batch.select(*loss.in_keys))


@pytest.mark.parametrize("policy", POLICIES)
def test_out_keys_are_what_the_loss_returns(policy: str) -> None:
    loss = make_loss(policy)
    assert list(loss(make_batch(4)).keys()) == loss.out_keys
    assert set(DUALS[policy]) <= set(loss.out_keys)


def test_in_keys_follow_set_keys() -> None:
    loss = make_loss()
    assert ("next", "reward") in loss.in_keys  # cached from here on
    loss.set_keys(reward=("a", "b"), terminated="over")
    assert ("next", "a", "b") in loss.in_keys and ("next", "over") in loss.in_keys
    assert ("next", "reward") not in loss.in_keys


def test_keys_set_after_the_value_estimator_reach_it() -> None:
    loss = make_loss()
    loss.make_value_estimator(gamma=0.5)
    loss.set_keys(reward="r", done="d", terminated="t", value="v")
    names = {"reward": "r", "done": "d", "terminated": "t"}
    assert loss(make_batch(4, names=names))["loss_qvalue"].isfinite()
    keys = loss.value_estimator.tensor_keys
    assert (keys.reward, keys.done, keys.terminated, keys.value) == ("r", "d", "t", "v")


def test_a_key_goes_back_to_its_default() -> None:
    loss = make_loss()
    loss.set_keys(reward="r")
    loss.set_keys(reward=None)
    assert loss.tensor_keys.reward == "reward"


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="rewards is not an accepted tensordict key"):
        make_loss().set_keys(rewards="r")


@pytest.mark.parametrize("key", ["my_priority", ("info", "priority")], ids=str)
def test_the_priority_goes_where_it_is_told(key: NestedKey) -> None:
    loss, batch = make_loss(), make_batch(4, 3)
    loss.set_keys(priority=key)
    loss(batch)
    assert batch[key].shape == (4, 3) and "td_error" not in batch.keys()


@pytest.mark.parametrize("key", ["q", ("critic", "q")], ids=str)
def test_the_critic_may_write_its_value_anywhere(key: NestedKey) -> None:
    critics = [make_critic(out_key=key) for _ in range(2)]
    loss = MPOLoss(make_actor(), critics)
    loss.set_keys(state_action_value=key)
    assert loss(make_batch(4))["loss_qvalue"] > 0


@pytest.mark.parametrize("key", ["improved", ("mpo", "improved")], ids=str)
def test_the_e_step_goes_where_it_is_told(key: NestedKey) -> None:
    loss, batch = make_loss(), make_batch(4)
    loss.set_keys(e_step=key)
    assert loss.e_step(batch)[key]["weight"].shape == (4, 5)


def test_the_batch_is_left_as_it_was_but_for_the_priority() -> None:
    batch = make_batch(4, 3)
    before = batch.clone()
    make_loss()(batch)
    assert batch.pop("td_error").shape == (4, 3)
    assert set(batch.keys(True, True)) == set(before.keys(True, True))
    assert (batch == before).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_keywords_give_the_losses_in_the_order_of_out_keys(policy: str) -> None:
    loss, batch = make_loss(policy), make_batch(4)
    expected = seeded(loss, batch.clone())
    entries = {"_".join(k) if isinstance(k, tuple) else k: batch[k] for k in loss.in_keys}
    losses = seeded(lambda: loss(**entries))
    assert len(losses) == len(loss.out_keys)
    for key, value in zip(loss.out_keys, losses, strict=True):
        torch.testing.assert_close(value, expected[key], msg=key)


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("policy", POLICIES)
def test_keywords_work_where_every_entry_has_one_number(policy: str, batch_size: int) -> None:
    # Then the batch size is guessed as [B, 1], as if the last dimension were one more of it.
    spec = Bounded(-1.0, 1.0, shape=(1,))
    critics = [make_critic(observation_size=1, action_size=1) for _ in range(2)]
    loss = MPOLoss(make_actor(policy, observation_size=1, spec=spec), critics)
    batch = make_batch(batch_size, observation_size=1, action_size=1)
    expected = seeded(loss, batch.clone())
    entries = {"_".join(k) if isinstance(k, tuple) else k: batch[k] for k in loss.in_keys}
    for key, value in zip(loss.out_keys, seeded(lambda: loss(**entries)), strict=True):
        torch.testing.assert_close(value, expected[key], msg=key)


def test_selected_out_keys_are_returned_alone() -> None:
    loss, batch = make_loss(), make_batch(4)
    loss.select_out_keys("loss_actor", "kl_mean")
    assert set(loss(batch.clone()).keys()) == {"loss_actor", "kl_mean"}
    entries = {"_".join(k) if isinstance(k, tuple) else k: batch[k] for k in loss.in_keys}
    loss_actor, kl_mean = loss(**entries)
    assert trained_groups(loss, loss_actor) == {"actor"} and not kl_mean.requires_grad
    loss.reset_out_keys()
    assert len(loss(**entries)) == len(loss.out_keys) > 2


def test_a_batch_may_declare_fewer_batch_dimensions_than_it_has() -> None:
    loss, batch = make_loss(), make_batch(4, 3)
    expected = seeded(loss, batch.clone())
    undeclared = batch.clone()
    undeclared.batch_size = [4]
    losses = seeded(loss, undeclared)
    for key in expected.keys():
        torch.testing.assert_close(losses[key], expected[key], msg=key)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 3), (2, 3, 2)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("policy", POLICIES)
def test_losses_keep_the_dtype_for_any_batch(policy: str, dtype: torch.dtype, shape: tuple) -> None:
    losses = make_loss(policy).to(dtype)(make_batch(*shape, dtype=dtype))
    for key, value in losses.items():
        assert value.dtype == dtype and value.isfinite() and value.shape == (), key
    assert set(loss_entries(losses)) == {
        "loss_qvalue",
        "loss_temperature",
        "loss_actor",
        "loss_alpha",
    }


def test_the_spec_may_come_with_the_loss() -> None:
    loss = MPOLoss(without_spec(make_actor()), make_critic(), action_spec=SPEC)
    assert loss.alpha_mean.raw.shape == (A,)
    assert loss(make_batch(4))["loss_actor"].isfinite()


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
