"""Laws that hold for any numbers: hypothesis looks for those that break them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mpo_torchrl.functional as F

settings.register_profile("steady", max_examples=50, deadline=None, derandomize=True)
settings.load_profile("steady")

EXTREMES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
epsilons = st.floats(1e-3, 2.0)
temperatures = st.floats(1e-2, 1e3)


@st.composite
def tensors(
    draw, *shape: int, spread: tuple[float, float] = (-3, 3), dtype=torch.float64
) -> Tensor:
    """Random numbers of any scale between ten to the two powers."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    scale = 10 ** draw(st.floats(*spread))
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


@given(tensors(2, 3, 7), temperatures, st.floats(-1e6, 1e6))
def test_weights_sum_to_one_and_forget_a_constant(q, temperature, constant) -> None:
    weight = F.nonparametric_weights(q, temperature)
    torch.testing.assert_close(weight.sum(-1), torch.ones(2, 3, dtype=q.dtype))
    # What is left of the constant is the rounding of the sum, in units of the temperature.
    atol = 1e-9 + 1e-15 * (abs(constant) + q.abs().max().item()) / temperature
    shifted = F.nonparametric_weights(q + constant, temperature)
    torch.testing.assert_close(shifted, weight, rtol=0, atol=10 * atol)


@given(tensors(5, 7, spread=(-2, 2)), temperatures)
def test_the_kl_of_weights_lies_between_zero_and_the_log_of_their_number(q, temperature) -> None:
    kl = F.nonparametric_kl(F.nonparametric_weights(q, temperature))
    assert (kl > -1e-12).all() and (kl < math.log(7) + 1e-6).all()


@given(tensors(5, 3), tensors(5, 3, spread=(-2, 1)), tensors(5, 3), tensors(5, 3, spread=(-2, 1)))
def test_gaussian_kls_are_not_negative_and_zero_at_equality(loc, scale, loc_2, scale_2) -> None:
    scale, scale_2 = scale.abs() + 1e-3, scale_2.abs() + 1e-3
    for kl in F.decoupled_gaussian_kl(loc, scale, loc_2, scale_2):
        assert (kl >= 0).all()
    for kl in F.decoupled_gaussian_kl(loc, scale, loc, scale):
        assert (kl == 0).all()


@given(tensors(5, 4, spread=(-2, 1)), tensors(5, 4, spread=(-2, 1)), st.floats(-100, 100))
def test_a_categorical_kl_is_not_negative_and_zero_at_equality(logits, logits_2, constant) -> None:
    assert (F.categorical_kl(logits, logits_2) > -1e-12).all()
    kl = F.categorical_kl(logits, logits + constant)
    torch.testing.assert_close(kl, torch.zeros_like(kl), rtol=0, atol=1e-12)


@given(tensors(6, 9, spread=(-3, 5)), st.floats(1e-2, 1.5), st.floats(-1e6, 1e6))
def test_the_best_temperature_spends_the_whole_bound_and_has_no_slope(q, epsilon, offset) -> None:
    best = F.optimal_temperature(q + offset * q.abs().max(), epsilon).requires_grad_()
    kl = F.nonparametric_kl(F.nonparametric_weights(q, best)).mean()
    assert abs(kl.item() - epsilon) < 1e-4
    F.temperature_loss(q, best, epsilon).mean().backward()
    assert abs(best.grad.item()) < 1e-5


@given(tensors(6, 9, spread=(-3, 3)), epsilons, st.floats(0.1, 10))
def test_no_other_temperature_has_a_smaller_dual(q, epsilon, factor) -> None:
    best = F.optimal_temperature(q, epsilon)
    least = F.temperature_loss(q, best, epsilon).mean()
    other = F.temperature_loss(q, best * factor, epsilon).mean()
    assert least <= other + 1e-9 * q.abs().max()


@given(tensors(6, 9, spread=(-1, 1)), epsilons)
def test_masked_states_do_not_count_for_the_best_temperature(q, epsilon) -> None:
    mask = torch.tensor([True, True, False, True, False, True])
    masked = F.optimal_temperature(q, epsilon, mask)
    torch.testing.assert_close(masked, F.optimal_temperature(q[mask], epsilon))


@given(tensors(5, 4, spread=(-1, 2)), tensors(5, 4, spread=(-1, 1)), temperatures)
def test_equal_priors_make_the_discrete_e_step_that_of_samples(q, logits, temperature) -> None:
    flat = torch.zeros_like(logits)
    improved = F.categorical_improvement(q, flat, temperature).exp()
    torch.testing.assert_close(improved, F.nonparametric_weights(q, temperature))
    dual = F.categorical_temperature_loss(q, flat, temperature, 0.1)
    torch.testing.assert_close(dual, F.temperature_loss(q, temperature, 0.1))


@given(tensors(5, 4, spread=(-1, 2)), tensors(5, 4, spread=(-1, 1)), temperatures)
def test_a_masked_action_is_as_if_it_were_not_there(q, logits, temperature) -> None:
    present = torch.tensor([True, False, True, True])
    masked = logits.masked_fill(~present, -torch.inf)
    q[:, ~present] = 1e15  # nor may its value cost the others their digits
    improved = F.categorical_improvement(q, masked, temperature)
    torch.testing.assert_close(
        improved[:, present],
        F.categorical_improvement(q[:, present], logits[:, present], temperature),
    )
    assert (improved[:, ~present] == -torch.inf).all()
    torch.testing.assert_close(
        F.categorical_temperature_loss(q, masked, temperature, 0.1),
        F.categorical_temperature_loss(q[:, present], logits[:, present], temperature, 0.1),
    )
    other = logits.flip(0).masked_fill(~present, -torch.inf).requires_grad_()
    loss = F.categorical_nll(improved.exp(), other) + F.categorical_kl(masked, other)
    (gradient,) = torch.autograd.grad(loss.sum(), other)
    assert loss.isfinite().all() and gradient.isfinite().all()


@given(tensors(4, 6, spread=(-1, 2)), tensors(4, 6, spread=(-2, 2)), st.integers(2, 12))
def test_projection_keeps_mass_and_inside_the_support_the_mean(logits, atoms, number) -> None:
    probs = torch.softmax(logits, -1)
    end = atoms.abs().max() + 1.0
    support = torch.linspace(-1, 1, number, dtype=atoms.dtype) * end
    projected = F.categorical_projection(probs, atoms, support)
    assert (projected >= 0).all()
    torch.testing.assert_close(projected.sum(-1), torch.ones(4, dtype=atoms.dtype))
    mean = (probs * atoms).sum(-1)
    torch.testing.assert_close((projected * support).sum(-1), mean, atol=1e-9 * end, rtol=0)


@given(tensors(4, 6, spread=(-1, 2)))
def test_projection_onto_the_same_support_changes_nothing(logits) -> None:
    probs, support = torch.softmax(logits, -1), torch.linspace(-3, 5, 6, dtype=torch.float64)
    projected = F.categorical_projection(probs, support.expand(4, 6), support)
    torch.testing.assert_close(projected, probs)


@given(tensors(8, spread=(-2, 1)), st.integers(2, 40))
def test_two_hot_decodes_what_it_encodes(value, number) -> None:
    support = torch.linspace(-50.0, 50.0, number, dtype=value.dtype)
    probs = F.two_hot_encode(value, support)
    torch.testing.assert_close(probs.sum(-1), torch.ones_like(value))
    assert ((probs > 1e-5).sum(-1) <= 2).all()
    expected = value.clamp(-50, 50)
    # The reference's offset of 1e-5 in the divisor pulls towards the upper neighbour.
    torch.testing.assert_close(F.two_hot_decode(probs, support), expected, rtol=0, atol=2e-5)


@given(tensors(8, spread=(-3, 6)))
def test_the_value_transform_can_be_undone(x) -> None:
    torch.testing.assert_close(
        F.signed_parabolic(F.signed_hyperbolic(x)), x, rtol=1e-12, atol=1e-12
    )


@given(tensors(8, spread=(-3, 3)))
def test_the_inverse_of_the_value_transform_keeps_the_digits_of_float32(x) -> None:
    code = F.signed_hyperbolic(x).float()
    found = F.signed_parabolic(code).double()
    torch.testing.assert_close(found, F.signed_parabolic(code.double()), rtol=1e-6, atol=1e-6)


@given(tensors(2, 6), tensors(2, 6), tensors(2, 5), st.floats(0, 1))
def test_retrace_without_traces_is_td0(reward, value, q_value, discount) -> None:
    discounts = torch.full_like(reward, discount)
    returns = F.retrace_return(reward, discounts, value, q_value, torch.zeros_like(q_value))
    torch.testing.assert_close(returns, reward + discount * value)


@given(tensors(2, 6), tensors(2, 6), st.floats(0, 1))
def test_retrace_on_policy_is_the_longest_n_step_return(reward, value, discount) -> None:
    discounts = torch.full_like(reward, discount)
    # On policy, and with values that fit the actions taken, the corrections telescope.
    returns = F.retrace_return(
        reward, discounts, value, value[:, :-1], torch.ones_like(value[:, :-1])
    )
    expected = F.n_step_return(reward, discounts, value, num_steps=6)
    torch.testing.assert_close(returns[:, 0], expected[:, 0])


@given(tensors(4, 8, spread=(-2, 3)), st.floats(0.2, 1.0), temperatures)
def test_vmpo_weights_sum_to_one_and_fall_on_the_best(advantage, fraction, temperature) -> None:
    weight = F.vmpo_weights(advantage, temperature, fraction)
    assert abs(weight.sum().item() - 1) < 1e-6
    number = int(fraction * 32)
    best = advantage.flatten().topk(number).indices
    left_out = torch.ones(32, dtype=torch.bool).index_fill(0, best, False)
    assert number == 32 or (weight.flatten()[left_out] == 0).all()


@EXTREMES
@pytest.mark.parametrize("temperature", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("size", [1e-20, 1.0, 1e20])
def test_extreme_values_stay_finite(dtype, temperature: float, size: float) -> None:
    torch.manual_seed(0)
    q = (size * torch.randn(4, 5)).to(dtype)
    eta = torch.tensor(temperature, dtype=dtype, requires_grad=True)
    logits = 50 * torch.randn(4, 5).to(dtype)
    weight = F.nonparametric_weights(q, eta)
    duals = {
        "temperature_loss": F.temperature_loss(q, eta, 0.1),
        "categorical_temperature_loss": F.categorical_temperature_loss(q, logits, eta, 0.1),
        "vmpo_temperature_loss": F.vmpo_temperature_loss(q, eta, 0.1),
    }
    outputs = {
        "nonparametric_weights": weight,
        "nonparametric_kl": F.nonparametric_kl(weight),
        "effective_sample_size": F.effective_sample_size(weight),
        "categorical_improvement": F.categorical_improvement(q, logits, eta).exp(),
        "vmpo_weights": F.vmpo_weights(q, eta),
        "optimal_temperature": F.optimal_temperature(q, 0.1),
        "signed_hyperbolic": F.signed_hyperbolic(q),
        **duals,
    }
    assert [name for name, output in outputs.items() if not output.isfinite().all()] == []
    for name, dual in duals.items():
        (slope,) = torch.autograd.grad(dual.sum(), eta)
        assert slope.isfinite(), name


if __name__ == "__main__":
    pytest.main([__file__])
