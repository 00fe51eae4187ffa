"""``reduction``, ``scalar_output_mode`` and masks: which states count, and how."""

from __future__ import annotations

import sys

import pytest
import torch

from tests.loss.builders import (
    POLICIES,
    loss_entries,
    make_batch,
    make_loss,
    move_policy,
    parameter_groups,
    seeded,
    total,
)

SHAPES = [(5,), (5, 3), (2, 4)]


def with_reduction(loss, reduction: str):
    loss.reduction, loss.out_keys = reduction, None
    return loss


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("policy", POLICIES)
def test_mean_and_sum_are_those_of_the_losses_per_state(policy: str, shape: tuple) -> None:
    loss, batch = move_policy(make_loss(policy)), make_batch(*shape)
    each, mean, summed = (
        loss_entries(seeded(with_reduction(loss, reduction), batch.clone()))
        for reduction in ("none", "mean", "sum")
    )
    for key, values in each.items():
        assert values.shape == shape
        torch.testing.assert_close(values.mean(), mean[key])
        torch.testing.assert_close(values.sum(), summed[key])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_has_the_batch_size_of_its_losses(shape: tuple) -> None:
    assert make_loss()(make_batch(*shape)).batch_size == ()
    assert make_loss(reduction="none")(make_batch(*shape)).batch_size == shape


@pytest.mark.parametrize("mode", [None, "exclude"])
def test_without_reduction_the_diagnostics_are_left_out(mode: str | None) -> None:
    loss = make_loss(reduction="none", scalar_output_mode=mode)
    losses = loss(make_batch(4))
    assert set(losses.keys()) == set(loss_entries(losses)) == set(loss.out_keys)


@pytest.mark.parametrize("policy", POLICIES)
def test_without_reduction_the_diagnostics_can_be_non_tensors(policy: str) -> None:
    loss = move_policy(make_loss(policy, reduction="none", scalar_output_mode="non_tensor"))
    batch = make_batch(4)
    losses = seeded(loss, batch.clone())
    reduced = seeded(with_reduction(loss, "mean"), batch.clone())
    assert set(losses.keys()) == set(reduced.keys())
    for key in set(losses.keys()) - set(loss_entries(losses)):
        assert losses.get_non_tensor(key) == reduced[key], key


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("key", ["auto", "valid", ("info", "valid")], ids=str)
@pytest.mark.parametrize("policy", POLICIES)
def test_masked_states_count_in_no_loss_no_reading_and_no_gradient(
    policy: str, key, reduction: str
) -> None:
    loss = move_policy(make_loss(policy, reduction=reduction))
    loss.loss_mask_key = key
    entry = ("collector", "mask") if key == "auto" else key
    mask = torch.tensor([[True, True, False], [True, False, False]])
    batch = loss.e_step(make_batch(2, 3))
    kept = batch[mask]
    batch[entry] = mask.unsqueeze(-1)

    masked, subset = seeded(loss, batch), seeded(loss, kept)
    # The two draw different bootstrap actions: the critic has a test of its own.
    for name in set(masked.keys()) - {"loss_qvalue"}:
        torch.testing.assert_close(masked[name], subset[name], msg=name)

    groups = parameter_groups(loss)
    owners = [p for name, group in groups.items() if name != "qvalue" for p in group]
    for got, expected in zip(
        torch.autograd.grad(total(masked), owners),
        torch.autograd.grad(total(subset), owners),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_masked_states_do_not_train_the_critic(reduction: str) -> None:
    loss = make_loss(reduction=reduction)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    batch = make_batch(2, 3)
    batch["next", "terminated"][:] = True  # no bootstrap: targets are the rewards
    kept = batch[mask]
    batch["collector", "mask"] = mask.unsqueeze(-1)
    parameters = parameter_groups(loss)["qvalue"]
    masked, subset = loss.qvalue_loss(batch)[0], loss.qvalue_loss(kept)[0]
    torch.testing.assert_close(masked, subset)
    torch.testing.assert_close(
        torch.autograd.grad(masked, parameters), torch.autograd.grad(subset, parameters)
    )


@pytest.mark.parametrize("e_step_critic", ["online", "target", "next"])
@pytest.mark.parametrize("policy", POLICIES)
def test_masked_states_may_hold_anything(policy: str, e_step_critic: str) -> None:
    loss = move_policy(make_loss(policy, e_step_critic=e_step_critic))
    mask = torch.tensor([[True, True, False], [True, False, False]])
    batch = make_batch(2, 3)
    batch["collector", "mask"] = mask.unsqueeze(-1)
    clean = batch.clone()
    for key in loss.in_keys:
        if batch[key].is_floating_point():
            batch[key][~mask] = torch.nan
    parameters = [p for p in loss.parameters() if p.requires_grad]

    losses, expected = seeded(loss, batch), seeded(loss, clean)
    for name in expected.keys():
        torch.testing.assert_close(losses[name], expected[name], msg=name)
    torch.testing.assert_close(
        torch.autograd.grad(total(losses), parameters),
        torch.autograd.grad(total(expected), parameters),
    )
    torch.testing.assert_close(batch["td_error"][mask], clean["td_error"][mask])
    assert batch["observation"][~mask].isnan().all()  # the batch itself is left as it is


def test_states_that_any_mask_leaves_out_do_not_count() -> None:
    loss, batch = make_loss(), make_batch(4)
    batch["collector", "mask"] = torch.tensor([[True], [True], [False], [True]])
    batch["shifted_valid"] = torch.tensor([[True], [False], [True], [True]])
    batch["observation"][1:3] = torch.nan
    total(loss(batch)).backward()
    assert all(p.grad.isfinite().all() for p in loss.network_parameters())


def test_a_batch_that_is_masked_whole_may_hold_anything() -> None:
    loss, batch = make_loss(), make_batch(4)
    batch["collector", "mask"] = torch.zeros(4, 1, dtype=torch.bool)
    for key in ("observation", "action"):
        batch[key][:] = torch.nan
    total(loss(batch)).backward()
    assert all(p.grad.isfinite().all() for p in loss.parameters())


def test_without_reduction_masked_states_are_zero_and_keep_their_place() -> None:
    loss = make_loss(reduction="none")
    mask = torch.tensor([[True, True, False], [True, False, False]])
    batch = make_batch(2, 3)
    batch["collector", "mask"] = mask.unsqueeze(-1)
    for key, values in loss_entries(loss(batch)).items():
        assert (values[~mask] == 0).all() and (values[mask] != 0).all(), key


def test_masks_can_be_ignored() -> None:
    loss, batch = make_loss(), make_batch(4)
    expected = seeded(loss, batch.clone())
    batch["collector", "mask"] = torch.zeros(4, 1, dtype=torch.bool)
    loss.loss_mask_key = None
    assert (seeded(loss, batch) == expected).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_way_a_batch_is_laid_out_changes_nothing(shape: tuple) -> None:
    loss = make_loss()
    batch = loss.e_step(make_batch(*shape))
    batch["next", "terminated"][:] = True
    flat, laid_out = loss(batch.reshape(-1)), loss(batch)
    for key in flat.keys():
        torch.testing.assert_close(laid_out[key], flat[key], msg=key)


def test_the_output_follows_a_reduction_that_is_changed_later() -> None:
    loss = make_loss()
    assert "temperature" in loss.out_keys
    loss.reduction = "none"
    assert "temperature" not in loss.out_keys
    batch = make_batch(4)
    given = {"_".join(k) if isinstance(k, tuple) else k: batch[k] for k in loss.in_keys}
    assert len(loss(**given)) == len(loss.out_keys)


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
