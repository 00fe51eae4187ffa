from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import mpo_torchrl.functional as F
from tests.reference.cases import Case, cases


def projection(case: Case) -> None:
    projected = F.categorical_projection(case["in/probs"], case["in/z_p"], case["in/z_q"])
    case.assert_close(projected, "out/projected_probs")


def support(case: Case) -> torch.Tensor:
    ends = case.config("min_value"), case.config("max_value")
    return torch.linspace(*ends, case.config("num_bins"), dtype=torch.float64)


def to_two_hot(case: Case) -> None:
    probs = F.two_hot_encode(case["in/scalar"], support(case))
    case.assert_close(probs, "out/probs")
    case.assert_close(F.two_hot_decode(probs, support(case)), "out/scalar_back")


def from_two_hot(case: Case) -> None:
    case.assert_close(F.two_hot_decode(case["in/probs"], support(case)), "out/scalar")


def off_policy_returns(case: Case) -> None:
    names = ("r_t", "discount_t", "v_t", "q_t", "c_t")
    case.assert_close(F.retrace_return(*(case[f"in/{name}"] for name in names)), "out/returns")


def retrace(case: Case) -> None:
    """As Acme calls it: values are untransformed, returns transformed back."""

    def identity(x: torch.Tensor, eps: float) -> torch.Tensor:
        return x

    hyperbolic = case.config("value_transform") == "signed_hyperbolic"
    forward, inverse = (
        (F.signed_hyperbolic, F.signed_parabolic) if hyperbolic else (identity, identity)
    )
    eps = case.config("value_transform_eps")
    ratio = torch.exp(case["in/target_log_prob"] - case["in/behavior_log_prob"])
    trace = case.config("retrace_lambda") * ratio.clamp(max=1)
    case.assert_close(trace, "out/c")
    discount = case.config("discount") * case["in/discount"]
    returns = F.retrace_return(
        case["in/reward"][:, :-1],
        discount[:, :-1],
        inverse(case["in/v_t"], eps)[:, 1:],
        inverse(case["in/q_t"], eps)[:, 1:-1],
        trace[:, 1:-1],
    )
    case.assert_close(returns, "out/returns_raw")
    case.assert_close(forward(returns, eps), "out/targets")


def n_step(case: Case) -> None:
    lmbda = case["in/lambda_t"] if "in/lambda_t" in case else case.config("lambda")
    entries = (case[f"in/{name}"] for name in ("r_t", "discount_t", "v_t"))
    returns = F.n_step_return(*entries, num_steps=case.config("n"), lmbda=lmbda)
    case.assert_close(returns, "out/returns")


def value_transform(case: Case) -> None:
    x, eps = case["in/x"], case.config("eps")
    case.assert_close(F.signed_hyperbolic(x, eps), "out/signed_hyperbolic")
    case.assert_close(F.signed_parabolic(x, eps), "out/signed_parabolic")
    there_and_back = F.signed_parabolic(F.signed_hyperbolic(x, eps), eps)
    case.assert_close(there_and_back, "out/parabolic_of_hyperbolic")


def quantile_loss(case: Case) -> None:
    quantiles = case["in/dist_src"].clone().requires_grad_()
    loss = F.quantile_regression_loss(
        quantiles, case["in/tau_src"], case["in/dist_target"], case.config("huber_param")
    )
    case.assert_close(loss, "out/loss")
    loss.mean().backward()
    case.assert_close(quantiles.grad, "grad/dist_src")


CHECKS: dict[str, Callable[[Case], None]] = {
    "categorical_l2_project": projection,
    "transform_to_2hot": to_two_hot,
    "transform_from_2hot": from_two_hot,
    "general_off_policy_returns_from_q_and_v": off_policy_returns,
    "retrace_as_in_acme": retrace,
    "n_step_bootstrapped_returns": n_step,
    "signed_hyperbolic": value_transform,
    "quantile_regression_loss": quantile_loss,
}


@cases("critic_targets")
def test_it_equals_rlax(case: Case) -> None:
    CHECKS[case.config("op")](case)


if __name__ == "__main__":
    pytest.main([__file__])
