from __future__ import annotations

import pytest
import torch
from torch import distributions as d

from mpo_torchrl.distributions import gaussian_base, join_heads


def test_a_gaussian_squashed_twice_is_squashed_in_that_order() -> None:
    normal = d.Independent(d.Normal(torch.tensor([0.5]), torch.tensor([2.0])), 1)
    once = d.TransformedDistribution(normal, [d.TanhTransform()])
    policy = d.TransformedDistribution(once, [d.AffineTransform(5.0, 3.0)])
    base = gaussian_base(policy)
    assert base is not None and (base.loc.item(), base.scale.item()) == (0.5, 2.0)
    sample = torch.tensor([0.3])
    torch.testing.assert_close(base.squash(sample), 5 + 3 * sample.tanh())
    torch.testing.assert_close(base.unsquash(base.squash(sample)), sample)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_heads_joined_keep_the_digits_of_the_real_one(dtype: torch.dtype) -> None:
    steer, gear = torch.full((2, 1), 0.1, dtype=dtype), torch.tensor([2, 0])
    joined = join_heads([gear, steer], [True, False])
    assert torch.equal(joined, torch.tensor([[2, 0.1], [0, 0.1]], dtype=dtype))


def test_heads_that_are_all_choices_are_joined_as_real_numbers() -> None:
    joined = join_heads([torch.tensor([2, 0]), torch.tensor([1, 1])], [True, True])
    assert torch.equal(joined, torch.tensor([[2.0, 1.0], [0.0, 1.0]]))


if __name__ == "__main__":
    pytest.main([__file__])
