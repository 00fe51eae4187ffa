"""The network bodies that MPO is usually run with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Adds to its input what two normalised layers make of it.

    ``x + LayerNorm(W2 relu(LayerNorm(W1 x)))``, the block of BroNet, `Nauman et al. (2024)
    <https://arxiv.org/abs/2405.16158>`_.

    Args:
        width (int): size of the input, of the layer between and of the output.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.modules import ResidualBlock
        >>> ResidualBlock(16)(torch.zeros(5, 16)).shape
        torch.Size([5, 16])
    """

    is_row_by_row = True
    is_castable = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.LayerNorm(width),
        )

    def forward(self, features: Tensor) -> Tensor:
        """``[*B, width]`` to ``[*B, width]``."""
        return features + self.layers(features)


def make_mlp(
    in_features: int,
    out_features: int,
    num_cells: Sequence[int] = (256, 256),
    *,
    layer_norm: bool = True,
    num_blocks: int = 0,
) -> nn.Sequential:
    """A multilayer perceptron whose first layer is normalised and bounded.

    Linear, LayerNorm and tanh first, then linear layers with ELU, then a linear output: the
    network of `Hoffman et al. (2020) <https://arxiv.org/abs/2006.00979>`_. Without
    ``layer_norm`` every hidden layer is followed by ELU alone.

    Args:
        in_features (int): size of the input.
        out_features (int): size of the output.
        num_cells (sequence of int): width of each hidden layer, at least one.

    Keyword Args:
        layer_norm (bool): normalise the first layer.
        num_blocks (int): how many :class:`ResidualBlock` follow the hidden layers, of the last
            one's width.

    Returns:
        nn.Sequential: ``[*B, in_features]`` to ``[*B, out_features]``.

    Raises:
        ValueError: if there is no hidden layer, or ``num_blocks`` is below 0.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.modules import make_mlp
        >>> make_mlp(3, 2, num_cells=(16, 16))(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """
    if not num_cells:
        raise ValueError("num_cells must name at least one hidden layer, got none.")
    if num_blocks < 0:
        raise ValueError(f"num_blocks must be at least 0, got {num_blocks}.")
    first = nn.Linear(in_features, num_cells[0])
    layers: list[nn.Module] = [first]
    layers += [nn.LayerNorm(num_cells[0]), nn.Tanh()] if layer_norm else [nn.ELU()]
    for width, next_width in zip(num_cells[:-1], num_cells[1:], strict=True):
        layers += [nn.Linear(width, next_width), nn.ELU()]
    layers += [ResidualBlock(num_cells[-1]) for _ in range(num_blocks)]
    return nn.Sequential(*layers, nn.Linear(num_cells[-1], out_features))


class PolicyNetwork(nn.Sequential):
    """A body and what follows it; the first policy is nearly the same in every state.

    Args:
        body (nn.Sequential): ends in a linear layer, which is made small.
        *heads (nn.Module): called one after another on what the body returns.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.modules import make_mlp
        >>> from mpo_torchrl.modules.mlp import PolicyNetwork
        >>> bool(PolicyNetwork(make_mlp(3, 2))(torch.randn(5, 3)).abs().max() < 0.1)
        True
    """

    is_chain = True

    def __init__(self, body: nn.Sequential, *heads: nn.Module) -> None:
        super().__init__(body, *heads)
        self._calm_last_layer()

    def reset_parameters(self) -> None:
        """Draws the last layer anew, as small as at first."""
        self._last_layer.reset_parameters()
        self._calm_last_layer()

    @property
    def _last_layer(self) -> nn.Linear:
        return cast(nn.Linear, cast(nn.Sequential, self[0])[-1])

    @torch.no_grad()
    def _calm_last_layer(self) -> None:
        self._last_layer.weight.mul_(0.01)
        self._last_layer.bias.zero_()
