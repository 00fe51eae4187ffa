from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from mpo_torchrl.modules import ResidualBlock, make_mlp


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


# -- residual blocks ----------------------------------------------------------------------


def test_residual_blocks_follow_the_hidden_layers() -> None:
    kinds = [type(layer) for layer in make_mlp(3, 2, (8, 9), num_blocks=2)]
    start = [nn.Linear, nn.LayerNorm, nn.Tanh, nn.Linear, nn.ELU]
    assert kinds == [*start, ResidualBlock, ResidualBlock, nn.Linear]


def test_a_block_adds_to_its_input_two_normalised_layers() -> None:
    block, features = ResidualBlock(8), torch.randn(2, 5, 8)
    first, norm, _, second, last_norm = block.layers
    expected = features + last_norm(second(norm(first(features)).relu()))
    torch.testing.assert_close(block(features), expected)


def test_what_a_block_adds_does_not_grow_with_its_input() -> None:
    block, features = ResidualBlock(64), torch.randn(5, 64)
    small, large = (block(x) - x for x in (10 * features, 1e4 * features))
    torch.testing.assert_close(small.norm(dim=-1), large.norm(dim=-1), rtol=0.05, atol=0)


def test_gradients_reach_the_input_past_a_block() -> None:
    block = ResidualBlock(8)
    for parameter in block.layers[-1].parameters():
        nn.init.zeros_(parameter)
    features = torch.randn(5, 8, requires_grad=True)
    block(features).sum().backward()
    torch.testing.assert_close(features.grad, torch.ones(5, 8))


def test_a_negative_number_of_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="num_blocks must be at least 0, got -1"):
        make_mlp(3, 2, num_blocks=-1)


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
