from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from mpo_torchrl.modules import make_mlp


def test_the_first_layer_is_normalised_and_bounded() -> None:
    kinds = [type(layer) for layer in make_mlp(3, 2, (8, 9, 10))]
    middle = [nn.Linear, nn.ELU] * 2
    assert kinds == [nn.Linear, nn.LayerNorm, nn.Tanh, *middle, nn.Linear]


def test_without_norm_every_hidden_layer_is_the_same() -> None:
    kinds = [type(layer) for layer in make_mlp(3, 2, (8, 9), layer_norm=False)]
    assert kinds == [nn.Linear, nn.ELU, nn.Linear, nn.ELU, nn.Linear]


def test_the_sizes_are_as_asked() -> None:
    linear = [m for m in make_mlp(3, 2, (8, 9)) if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(3, 8), (8, 9), (9, 2)]


def test_large_inputs_are_bounded_after_the_first_layer() -> None:
    features = make_mlp(3, 2, (8,))[:3](1e6 * torch.randn(5, 3))
    assert (features.abs() <= 1.0).all()


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)], ids=str)
def test_any_batch_will_do(batch: tuple) -> None:
    assert make_mlp(3, 2, (8,))(torch.randn(*batch, 3)).shape == (*batch, 2)


def test_no_hidden_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="num_cells must name at least one hidden layer"):
        make_mlp(3, 2, ())


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
