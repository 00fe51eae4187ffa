from __future__ import annotations

import math

import pytest
import torch

from mpo_torchrl.functional import vmpo_kl, vmpo_temperature_loss, vmpo_weights

FRACTIONS = pytest.mark.parametrize("top_k_fraction", [0.25, 0.5, 1.0])


def advantages(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_kl_is_that_of_the_best_half_to_uniform_weights() -> None:
    share = 1 / (1 + math.e)  # of 0 beside 1
    expected = share * math.log(2 * share) + (1 - share) * math.log(2 * (1 - share))
    found = vmpo_kl(torch.tensor([0.0, 1.0, -5.0, -9.0]), temperature=1.0)
    assert found.item() == pytest.approx(expected, rel=1e-5)


@FRACTIONS
def test_equal_advantages_spend_nothing(top_k_fraction: float) -> None:
    found = vmpo_kl(torch.full((8,), 3.0), 0.1, top_k_fraction)
    assert found.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("top_k_fraction", [0.29, 0.5, 0.57, 0.58])
@pytest.mark.parametrize("number", [50, 64, 100, 200])
def test_a_mask_that_leaves_out_nothing_changes_nothing(top_k_fraction, number) -> None:
    advantage, mask = advantages(number), torch.ones(number, dtype=torch.bool)
    found = vmpo_weights(advantage, 1.0, top_k_fraction, mask=mask)
    assert (found == vmpo_weights(advantage, 1.0, top_k_fraction)).all()


@pytest.mark.parametrize("function", [vmpo_weights, vmpo_kl])
def test_without_a_step_there_are_no_weights(function) -> None:
    with pytest.raises(ValueError, match="advantage must hold at least one step"):
        function(torch.zeros(0), 1.0, 1.0)


@FRACTIONS
def test_weights_in_proportion_to_the_importance_spend_nothing(top_k_fraction: float) -> None:
    importance = torch.tensor([0.1, 1.0, 0.5, 2.0])
    found = vmpo_kl(torch.full((4,), 3.0), 0.1, top_k_fraction, importance_weight=importance)
    assert found.item() == pytest.approx(0.0, abs=1e-6)


def test_a_step_that_is_infinitely_worse_counts_as_one_of_weight_zero() -> None:
    found = vmpo_kl(torch.tensor([0.0, -3e38]), temperature=0.1, top_k_fraction=1.0)
    assert found.item() == pytest.approx(math.log(2))


def test_the_dual_teaches_the_temperature_alone_and_weights_and_kl_nothing() -> None:
    advantage, temperature = advantages(8).requires_grad_(), torch.tensor(0.7, requires_grad=True)
    assert not vmpo_weights(advantage, temperature).requires_grad
    assert not vmpo_kl(advantage, temperature).requires_grad
    loss = vmpo_temperature_loss(advantage, temperature, 0.1)
    found = torch.autograd.grad(loss, (advantage, temperature), allow_unused=True)
    assert found[0] is None and found[1] != 0


@FRACTIONS
def test_slope_of_the_dual_is_its_bound_minus_the_kl(top_k_fraction: float) -> None:
    advantage, temperature = advantages(20), torch.tensor(0.7, requires_grad=True).double()
    temperature.retain_grad()
    mask = torch.arange(20) % 4 != 0
    vmpo_temperature_loss(advantage, temperature, 0.1, top_k_fraction, mask=mask).backward()
    kl = vmpo_kl(advantage, temperature, top_k_fraction, mask=mask)
    assert temperature.grad.item() == pytest.approx(0.1 - kl.item(), rel=1e-6)


@FRACTIONS
@pytest.mark.parametrize("shift", [0.0, -1000.0, 1000.0])
def test_masked_steps_are_as_if_they_were_not_there(top_k_fraction: float, shift: float) -> None:
    advantage = advantages(6, 4) + shift
    mask = torch.arange(24).reshape(6, 4) % 5 != 0  # 19 steps, of which none is half
    given = advantage.masked_fill(~mask, 0.0)
    weight = vmpo_weights(given, 0.5, top_k_fraction, mask=mask)
    torch.testing.assert_close(weight[mask], vmpo_weights(advantage[mask], 0.5, top_k_fraction))
    assert not weight[~mask].any()
    torch.testing.assert_close(
        vmpo_temperature_loss(given, 0.5, 0.1, top_k_fraction, mask=mask),
        vmpo_temperature_loss(advantage[mask], 0.5, 0.1, top_k_fraction),
    )


@pytest.mark.parametrize("shift", [0.0, -30.0, -1000.0, 1000.0])
def test_a_restarting_step_has_no_say_however_bad_the_others_are(shift: float) -> None:
    advantage = advantages(9) + shift
    restarting = (torch.arange(9) % 3 != 0).double()
    kept = advantage[restarting.bool()]
    weight = vmpo_weights(advantage, 1.0, 0.5, restarting)
    torch.testing.assert_close(weight[restarting.bool()], vmpo_weights(kept, 1.0, 0.75))
    temperature = torch.ones(2, dtype=torch.float64, requires_grad=True)
    found = vmpo_temperature_loss(advantage, temperature[0], 0.1, 0.5, restarting)
    expected = vmpo_temperature_loss(kept, temperature[1], 0.1, 0.75)
    torch.testing.assert_close(found, expected)
    (found + expected).backward()
    torch.testing.assert_close(temperature.grad[0], temperature.grad[1])


def test_if_every_step_restarts_the_temperature_pays_its_bound() -> None:
    temperature = torch.tensor(2.0, requires_grad=True)
    loss = vmpo_temperature_loss(torch.randn(4), temperature, 0.1, 0.5, torch.zeros(4))
    loss.backward()
    assert (loss.item(), temperature.grad.item()) == (pytest.approx(0.2), pytest.approx(0.1))


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="must have one shape"):
        vmpo_weights(torch.zeros(4), 1.0, mask=torch.ones(3, dtype=torch.bool))


def test_a_fraction_that_leaves_none_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves none of 3 steps"):
        vmpo_weights(torch.zeros(3), 1.0, top_k_fraction=0.1)


if __name__ == "__main__":
    pytest.main([__file__])
