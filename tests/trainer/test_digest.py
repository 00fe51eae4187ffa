from __future__ import annotations

import pytest
import torch

from mpo_torchrl.trainer import state_sha256


class Holder:
    def __init__(self, **state):
        self.state = state

    def state_dict(self):
        return self.state


def digest(**state):
    return state_sha256(part=Holder(**state))


def test_equal_tensors_have_equal_digests():
    assert digest(a=torch.arange(3.0), n=1) == digest(a=torch.arange(3.0), n=2)


def test_the_order_of_the_entries_does_not_matter():
    one, other = torch.ones(2), torch.zeros(3)
    assert digest(a=one, b=other) == digest(b=other, a=one)


def test_an_expanded_number_is_read_as_any_other():
    number = torch.tensor(2.0)
    assert digest(a=number.expand(1)) == digest(a=number.reshape(1))


def test_layout_in_memory_does_not_matter():
    table = torch.arange(6.0).reshape(2, 3)
    assert digest(a=table.t().contiguous().t()) == digest(a=table)


@pytest.mark.parametrize(
    "other",
    [
        {"a": torch.tensor([0.0, 1.0, 2.0000002])},
        {"a": torch.tensor([-0.0, 1.0, 2.0])},
        {"b": torch.arange(3.0)},
        {"a": torch.arange(3.0)[None]},
        {"a": torch.arange(3.0).view(torch.int32)},
        {"a": torch.arange(3.0), "b": torch.ones(1)},
        {"state": {0: {"a": torch.arange(3.0)}}},
    ],
    ids=["last bit", "sign of zero", "name", "shape", "dtype", "one more", "deeper"],
)
def test_any_difference_gives_another_digest(other):
    assert digest(**other) != digest(a=torch.arange(3.0))


def test_the_optimizer_counts():
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(layer.parameters())
    before = state_sha256(loss=layer, optimizer=optimizer)
    layer(torch.ones(2)).sum().backward()
    optimizer.step()
    layer.load_state_dict(layer.state_dict())
    assert state_sha256(optimizer=optimizer) != before


def test_half_precision_is_read_as_it_is():
    one, other = torch.ones(3, dtype=torch.bfloat16), torch.ones(3, dtype=torch.float16)
    assert digest(a=one) != digest(a=other)


if __name__ == "__main__":
    pytest.main([__file__])
