from __future__ import annotations

import pytest
import torch

import mpo_torchrl.functional as F
from tests.reference.cases import Case, cases

EVERY_CASE = cases("kl")


def policies(case: Case) -> tuple[torch.Tensor, ...]:
    reference = case["in/target_mean"], case["in/target_stddev"]
    online = case["in/online_mean"].clone(), case["in/online_stddev"].clone()
    return *reference, *(tensor.requires_grad_() for tensor in online)


@EVERY_CASE
def test_kls_equal_tensorflow_probability(case: Case) -> None:
    kl_mean, kl_stddev = F.decoupled_gaussian_kl(*policies(case))
    case.assert_close(kl_mean, "out/kl_mean")
    case.assert_close(kl_stddev, "out/kl_stddev")
    case.assert_close(kl_mean.sum(-1), "out/kl_mean_sum")
    case.assert_close(kl_stddev.sum(-1), "out/kl_stddev_sum")


@EVERY_CASE
def test_a_tanh_of_both_policies_changes_no_kl(case: Case) -> None:
    kl_mean, kl_stddev = F.decoupled_gaussian_kl(*policies(case))
    case.assert_close(kl_mean, "out/kl_mean_tanh")
    case.assert_close(kl_stddev, "out/kl_stddev_tanh")


@EVERY_CASE
def test_gradients_of_kls_equal_tensorflow_probability(case: Case) -> None:
    loc_ref, scale_ref, loc, scale = policies(case)
    kl_mean, kl_stddev = F.decoupled_gaussian_kl(loc_ref, scale_ref, loc, scale)
    (kl_mean.sum() + kl_stddev.sum()).backward()
    case.assert_close(loc.grad, "grad/kl_mean/online_mean")
    case.assert_close(scale.grad, "grad/kl_stddev/online_stddev")


if __name__ == "__main__":
    pytest.main([__file__])
