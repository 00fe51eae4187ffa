"""Where float64 itself wavers, against the same formulas at 50 digits."""

from __future__ import annotations

import mpmath as mp
import pytest
import torch
from torch import Tensor

import mpo_torchrl.functional as F
from mpo_torchrl.dual import LagrangeMultiplier

mp.mp.dps = 50

OFFSETS = pytest.mark.parametrize("offset", [0.0, 1e6, -1e6])
SPREADS = pytest.mark.parametrize("spread", [1e-4, 1.0, 1e4])
TEMPERATURES = pytest.mark.parametrize("temperature", [2.5e-8, 1e-3, 1.0, 1e4])
SHAPES = pytest.mark.parametrize("shape", [(1, 1), (1, 20), (5, 1), (3, 20), (2, 3, 7)])


def draw(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def exact_dual(values: list[float], temperature: float, epsilon: float):
    """Weights, loss and slope in the temperature of one state."""
    values, eta = [mp.mpf(v) for v in values], mp.mpf(temperature)
    exponentials = [mp.exp((v - max(values)) / eta) for v in values]
    total = mp.fsum(exponentials)
    weight = [e / total for e in exponentials]
    mean_exp = mp.log(total / len(values)) + max(values) / eta
    slope = epsilon + mean_exp - mp.fsum(w * v for w, v in zip(weight, values, strict=True)) / eta
    return weight, eta * epsilon + eta * mean_exp, slope


def assert_close(actual: Tensor, expected: list, rtol: float = 1e-9, atol: float = 1e-12) -> None:
    expected = torch.tensor([float(e) for e in expected], dtype=torch.float64)
    torch.testing.assert_close(actual.detach().flatten(), expected, rtol=rtol, atol=atol)


@OFFSETS
@SPREADS
@TEMPERATURES
@SHAPES
def test_e_step_keeps_its_digits(offset, spread, temperature, shape) -> None:
    q_value = offset + spread * draw(*shape)
    eta = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    loss = F.temperature_loss(q_value, eta, epsilon=0.125)
    loss.sum().backward()

    exact = [
        exact_dual(row, temperature, mp.mpf("0.125")) for row in q_value.flatten(0, -2).tolist()
    ]
    # Values are given in float64, so their differences carry that rounding: (q - max) / eta.
    assert_close(F.nonparametric_weights(q_value, eta), [w for row, _, _ in exact for w in row])
    assert_close(loss, [value for _, value, _ in exact])
    assert_close(eta.grad, [mp.fsum(slope for _, _, slope in exact)])


@SHAPES
@pytest.mark.parametrize("stddev", [1e-4, 1.0, 30.0])
def test_m_step_keeps_its_digits(shape, stddev) -> None:
    *batch, num_samples = shape
    size = 3
    loc_ref, scale_ref = draw(*batch, size), stddev * (1 + draw(*batch, size).abs())
    action = loc_ref.unsqueeze(-2) + scale_ref.unsqueeze(-2) * draw(*batch, num_samples, size)
    weight = torch.softmax(draw(*batch, num_samples), -1)
    loc = (loc_ref + 0.3 * stddev).requires_grad_()
    scale = (1.1 * scale_ref).requires_grad_()
    nll = F.decoupled_gaussian_nll(action, weight, loc_ref, scale_ref, loc, scale)
    nll.sum().backward()

    value, slope_loc, slope_scale = [], [], []
    for b in range(loc.flatten(0, -2).shape[0]):
        total = mp.mpf(0)
        for d in range(size):
            mu0, s0, mu, s = (
                mp.mpf(t.detach().flatten(0, -2)[b, d].item())
                for t in (loc_ref, scale_ref, loc, scale)
            )
            grad_mu = grad_s = mp.mpf(0)
            for n in range(num_samples):
                w = mp.mpf(weight.flatten(0, -2)[b, n].item())
                a = mp.mpf(action.flatten(0, -3)[b, n, d].item())
                total += w * (((a - mu) / s0) ** 2 / 2 + mp.log(s0) + mp.log(2 * mp.pi) / 2)
                total += w * (((a - mu0) / s) ** 2 / 2 + mp.log(s) + mp.log(2 * mp.pi) / 2)
                grad_mu += w * (mu - a) / s0**2
                grad_s += w * (1 / s - (a - mu0) ** 2 / s**3)
            slope_loc.append(grad_mu)
            slope_scale.append(grad_s)
        value.append(total)
    # Sums over samples cancel: the rounding is that of their largest term.
    assert_close(nll, value, atol=1e-11)
    assert_close(loc.grad, slope_loc, atol=1e-11 / stddev)
    assert_close(scale.grad, slope_scale, atol=1e-11 / stddev)


@pytest.mark.parametrize("stddev", [1e-4, 1.0])
@pytest.mark.parametrize("ratio", [1 + 1e-6, 0.9, 3.0])
def test_kl_keeps_its_digits(stddev, ratio) -> None:
    scale_ref = torch.tensor([stddev], dtype=torch.float64)
    scale = (scale_ref / ratio).requires_grad_()
    loc_ref, loc = (
        torch.tensor([0.7], dtype=torch.float64),
        torch.tensor([0.5], dtype=torch.float64),
    )
    loc.requires_grad_()
    kl_mean, kl_stddev = F.decoupled_gaussian_kl(loc_ref, scale_ref, loc, scale)
    (kl_mean + kl_stddev).sum().backward()

    mu0, mu, s0, s = (mp.mpf(t.item()) for t in (loc_ref, loc, scale_ref, scale))
    assert_close(kl_mean, [((mu0 - mu) / s0) ** 2 / 2])
    # Of a KL of 5e-13, sixteen digits of the two stddevs leave ten.
    assert_close(kl_stddev, [((s0 / s) ** 2 - 1) / 2 - mp.log(s0 / s)], atol=0)
    assert_close(loc.grad, [(mu - mu0) / s0**2])
    assert_close(scale.grad, [1 / s - s0**2 / s**3], atol=1e-9)


def test_small_kl_of_stddevs_keeps_its_digits_in_float32() -> None:
    scale_ref = torch.tensor([0.5])
    scale = torch.tensor([0.5 * (1 - 5 * 2**-13)])  # exact in float32
    _, kl = F.decoupled_gaussian_kl(scale_ref, scale_ref, scale_ref, scale)
    ratio = 1 / (1 - 5 * mp.mpf(2) ** -13)
    exact = float((ratio**2 - 1) / 2 - mp.log(ratio))  # 3.7e-7
    assert kl.item() == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("raw", [-18.0, -30.0])
def test_multiplier_at_the_floor_equals_acme_at_minus_18(raw) -> None:
    multiplier = LagrangeMultiplier(1.0).double()
    multiplier.raw.data.fill_(raw)
    value = multiplier()
    (-value).backward()  # as a loss has it that asks for a greater one
    floor = mp.exp(mp.mpf(-18))
    assert_close(value, [mp.log(1 + floor) + mp.mpf("1e-8")], atol=0)
    assert_close(multiplier.raw.grad, [-floor / (1 + floor)], atol=0)


def test_temperature_gradient_survives_large_values_in_float32() -> None:
    for offset, eta in [(1e3, 0.1), (1e5, 0.1), (-1e5, 0.1)]:
        q_value = torch.tensor([[0.0, 0.0625, 0.125, -0.25]]) + offset  # exact in float32
        temperature = torch.tensor(eta, requires_grad=True)
        F.temperature_loss(q_value, temperature, epsilon=0.1).sum().backward()
        row = [float(q) for q in q_value[0]]
        _, _, slope = exact_dual(row, float(temperature.detach()), mp.mpf(float(torch.tensor(0.1))))
        assert temperature.grad.item() == pytest.approx(float(slope), rel=1e-5)


if __name__ == "__main__":
    pytest.main([__file__])
