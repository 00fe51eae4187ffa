from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mpo_torchrl import MPOLoss
from mpo_torchrl.dual import ExactTemperature
from mpo_torchrl.functional import temperature_loss
from tests.loss.builders import (
    POLICIES,
    make_actor,
    make_batch,
    make_critic,
    move_policy,
    seeded,
    total,
)


def make_loss(epsilon: float = 0.1, policy: str = "gaussian", **settings) -> MPOLoss:
    torch.manual_seed(0)
    actor, critic = make_actor(policy), make_critic()
    return MPOLoss(actor, critic, temperature=ExactTemperature(epsilon), **settings)


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("shape", [(6,), (2, 3), (1,)], ids=str)
@pytest.mark.parametrize("policy", POLICIES)
def test_every_e_step_spends_its_bound(policy: str, shape: tuple, epsilon: float) -> None:
    loss = move_policy(make_loss(epsilon, policy))
    assert loss(make_batch(*shape))["kl_e_step"].item() == pytest.approx(epsilon, abs=1e-4)


def test_the_dual_has_no_slope_at_the_solution() -> None:
    batch = make_loss().e_step(make_batch(6))
    temperature = batch["e_step", "temperature"][0].clone().requires_grad_()
    temperature_loss(batch["e_step", "state_action_value"], temperature, 0.1).mean().backward()
    assert abs(temperature.grad) < 1e-4


def test_nothing_of_it_is_trained() -> None:
    loss = make_loss(epsilon_penalty=None)
    assert set(loss.multipliers()) == {"alpha_mean", "alpha_stddev"}
    losses = loss(make_batch(4))
    assert losses["loss_temperature"] == 0 and not losses["loss_temperature"].requires_grad
    assert "temperature" in loss.out_keys and losses["temperature"] > 0
    total(losses).backward()
    assert all(p.grad is not None for p in loss.dual_parameters())


def test_its_bound_is_set_by_assignment() -> None:
    loss, batch = make_loss(0.1), make_batch(6)
    loss.epsilon = 0.3
    assert loss.epsilon == pytest.approx(0.3)
    assert loss(batch)["kl_e_step"].item() == pytest.approx(0.3, abs=1e-4)


@pytest.mark.parametrize("mask_shape", [(4, 1), (4,)], ids=str)
@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 2)], ids=str)
def test_masked_states_do_not_count(shape: tuple, mask_shape: tuple) -> None:
    loss, batch = make_loss(), make_batch(*shape)
    batch = loss.e_step(batch)
    kept = torch.tensor([True, False, True, True])
    expected = ExactTemperature(0.1)(batch["e_step", "state_action_value"][kept])
    for entry in ("temperature", "weight"):
        del batch["e_step", entry]
    mask = kept.reshape(4, *(1,) * (len(shape) - 1)).expand(shape)
    batch["collector", "mask"] = mask.unsqueeze(-1) if len(mask_shape) == 2 else mask
    torch.testing.assert_close(loss(batch)["temperature"], expected)


def test_a_state_dict_brings_its_bound_back() -> None:
    loss, other = make_loss(0.1), make_loss(0.2)
    other.load_state_dict(loss.state_dict())
    batch = make_batch(6)

    def temperature(of: MPOLoss) -> Tensor:
        return seeded(of, batch)["temperature"]

    torch.testing.assert_close(temperature(other), temperature(loss))


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan")])
def test_a_bound_that_is_not_positive_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon is a bound on a KL divergence and must be"):
        ExactTemperature(epsilon)


def test_a_compiled_loss_is_one_graph_with_the_same_numbers() -> None:
    loss, batch = make_loss(), make_batch(6)
    expected = seeded(loss, batch.copy())
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(dict(seeded(compiled, batch.copy())), dict(expected))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_loss_in_low_precision_is_of_that_precision(dtype: torch.dtype) -> None:
    loss, batch = make_loss().to(dtype), make_batch(4)
    batch = batch.apply(lambda t: t.to(dtype) if t.is_floating_point() else t)
    losses = loss(batch)
    total(losses).backward()
    assert losses["temperature"] > 0 and losses["loss_actor"].dtype == dtype


if __name__ == "__main__":
    pytest.main([__file__])
