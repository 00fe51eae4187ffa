"""Networks that remember learn what others cannot."""

from __future__ import annotations

import pytest
import torch

from benchmarks.recall import mean_rewards


@pytest.mark.parametrize(
    ("recurrent", "updates", "low", "high"), [(True, 100, -0.6, 0.0), (False, 40, -1.2, -0.9)]
)
def test_a_sign_shown_once_is_acted_on_later_if_networks_remember(recurrent, updates, low, high):
    torch.manual_seed(0)
    ((_, reward),) = mean_rewards(recurrent, updates, every=updates)
    assert low < reward < high  # -1 is the best without the sign


if __name__ == "__main__":
    pytest.main([__file__])
