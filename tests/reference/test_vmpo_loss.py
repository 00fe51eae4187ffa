"""V-MPO through the loss itself, on the cases of rlax."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torchrl.data import Categorical
from torchrl.modules import ValueOperator

from mpo_torchrl import VMPOLoss
from mpo_torchrl.dual import KLMultiplier
from mpo_torchrl.m_step import Fit
from mpo_torchrl.modules import make_discrete_actor
from tests.reference.cases import Case, cases

EVERY_CASE = cases("rlax_vmpo")
WEIGHTS = ("policy", "temperature", "kl", "alpha")


class GivenFit(nn.Module):
    """An M-step that is told its log-probabilities and KLs, as rlax is by its caller."""

    readings = ()

    def __init__(self, log_prob: Tensor, kl: dict[str, Tensor], epsilon: dict[str, float]) -> None:
        super().__init__()
        self.log_prob, self.kl = log_prob, kl
        multipliers = {
            name: KLMultiplier(epsilon[name], 1.0, shape=value.shape[log_prob.ndim :])
            for name, value in kl.items()
        }
        self.multipliers = nn.ModuleDict(multipliers)

    def forward(self, improved, policy, reference) -> Fit:
        return Fit(-improved["weight"] * self.log_prob, self.kl)


def make_batch(case: Case) -> TensorDict:
    advantage = case["in/advantages"]
    batch = advantage.shape
    entries = {
        "observation": torch.zeros(*batch, 1, dtype=torch.float64),
        "action": torch.zeros(batch, dtype=torch.long),
        "advantage": advantage.unsqueeze(-1),
        "value_target": torch.zeros_like(advantage).unsqueeze(-1),
    }
    for name in ("restarting", "importance"):
        if case.config(f"has_{name}_weights"):
            entries[f"{name}_weight"] = case[f"in/{name}_weights"]
    return TensorDict(entries, batch)


@EVERY_CASE
def test_vmpo_loss_given_a_case_under_its_keys_equals_rlax(case: Case) -> None:
    log_prob = case["in/sample_log_probs"].clone().requires_grad_()
    names = [f"constraint{i}" for i in range(case.config("num_kl_constraints"))]
    kl = {name: case[f"in/{name}_kl"].clone().requires_grad_() for name in names}
    m_step = GivenFit(log_prob, kl, {name: case.config(f"{name}_epsilon") for name in names})
    loss = VMPOLoss(
        make_discrete_actor(1, Categorical(2), num_cells=(2,)),
        ValueOperator(nn.Linear(1, 1), in_keys=["observation"]),
        epsilon=case.config("epsilon_temperature"),
        top_k_fraction=case.config("top_k_fraction"),
        m_step=m_step,
        reduction="none",
        scalar_output_mode="exclude",
    ).double()
    duals = {"temperature": (loss.temperature, case["in/temperature"])}
    for name in names:
        duals[f"{name}_alpha"] = (m_step.multipliers[name], case[f"in/{name}_alpha"])
    for dual, value in duals.values():
        dual.assign(value)
    out = loss(make_batch(case))

    case.assert_close(out["loss_temperature"][(0,) * log_prob.ndim], "out/temperature_loss")
    case.assert_close(out["loss_alpha"], "out/alpha_loss")
    actor = case["out/policy_loss"] + case["out/kl_loss"]
    torch.testing.assert_close(out["loss_actor"], actor, rtol=1e-9, atol=1e-12)

    # The weights of the terms are the caller's, as they are in any sum of losses.
    factor = {name: case.config(f"{name}_loss_weight") for name in WEIGHTS}
    total = out["loss_temperature"] * factor["temperature"] + out["loss_alpha"] * factor["alpha"]
    total.mean().backward()
    out["loss_actor"].mean().backward()
    case.assert_close(log_prob.grad * factor["policy"], "grad/sample_log_probs")
    for name in names:
        case.assert_close(kl[name].grad * factor["kl"], f"grad/{name}_kl")
    for name, (dual, _) in duals.items():
        slope = torch.sigmoid(dual.raw.detach())  # of softplus, between value and raw parameter
        case.assert_close(dual.raw.grad / slope, f"grad/{name}")


if __name__ == "__main__":
    pytest.main([__file__])
