"""Value networks, of actions and of states."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import NestedKey
from torch import Tensor, nn
from torchrl.data import TensorSpec
from torchrl.modules import ValueOperator

from mpo_torchrl.modules.bounds import action_range
from mpo_torchrl.modules.mlp import make_mlp


class JoinAction(nn.Module):
    """Puts an observation and an action side by side, the action clipped to its bounds.

    What lies outside the bounds acts as the bound itself does, so the critic shall not tell
    them apart; an unsquashed policy learns to stay inside from its penalty. Actions enter as
    fractions of half their range.

    Args:
        action_spec (TensorSpec): the action's spec, ``[A]``.

    Examples:
        >>> import torch
        >>> from torchrl.data import Bounded
        >>> from mpo_torchrl.modules import JoinAction
        >>> join = JoinAction(Bounded(-2.0, 2.0, shape=(1,)))
        >>> join(torch.zeros(1, 2), torch.tensor([[3.0]]))
        tensor([[0., 0., 1.]])
    """

    middle: Tensor
    half_range: Tensor
    is_row_by_row = True

    def __init__(self, action_spec: TensorSpec) -> None:
        super().__init__()
        middle, half_range, self.bounded = action_range(action_spec)
        self.register_buffer("middle", middle)
        self.register_buffer("half_range", half_range)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """``[*B, O]`` and ``[*B, A]`` to ``[*B, O + A]``."""
        action = (action - self.middle) / self.half_range
        if self.bounded:
            action = action.clamp(-1.0, 1.0)
        return torch.cat([observation, action], dim=-1)


class ActionValueMLP(nn.Module):
    """The value of an action in a state: :class:`JoinAction`, then a multilayer perceptron.

    Args:
        observation_size (int): size of the observation vector.
        action_spec (TensorSpec): the action's spec, ``[A]``.

    Keyword Args:
        num_cells (sequence of int): width of each hidden layer.
        layer_norm (bool): see :func:`~mpo_torchrl.modules.make_mlp`.
        num_blocks (int): see :func:`~mpo_torchrl.modules.make_mlp`.
        num_outputs (int): 1 for a value; as many as the critic part reads of each action.

    Examples:
        >>> import torch
        >>> from torchrl.data import Bounded
        >>> from mpo_torchrl.modules import ActionValueMLP
        >>> network = ActionValueMLP(3, Bounded(-2.0, 2.0, shape=(1,)))
        >>> network(torch.zeros(5, 3), torch.zeros(5, 1)).shape
        torch.Size([5, 1])
    """

    is_chain = True  # its children are called one after another, the first with all inputs

    def __init__(
        self,
        observation_size: int,
        action_spec: TensorSpec,
        *,
        num_cells: Sequence[int] = (256, 256),
        layer_norm: bool = True,
        num_blocks: int = 0,
        num_outputs: int = 1,
    ) -> None:
        super().__init__()
        in_features = observation_size + action_spec.shape[-1]
        self.join = JoinAction(action_spec)
        self.body = make_mlp(
            in_features, num_outputs, num_cells, layer_norm=layer_norm, num_blocks=num_blocks
        )

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Outputs ``[*B, num_outputs]`` for actions ``[*B, A]`` in states ``[*B, O]``."""
        return self.body(self.join(observation, action))


def make_critics(
    observation_size: int,
    action_spec: TensorSpec,
    *,
    num_critics: int = 2,
    num_cells: Sequence[int] = (256, 256),
    layer_norm: bool = True,
    num_blocks: int = 0,
    num_outputs: int = 1,
    in_key: NestedKey = "observation",
    action_key: NestedKey = "action",
) -> list[ValueOperator]:
    """Critics that start from different draws.

    Args:
        observation_size (int): size of the observation vector.
        action_spec (TensorSpec): the action's spec, ``[A]``.

    Keyword Args:
        num_critics (int): how many, at least 1.
        num_cells (sequence of int): width of each hidden layer.
        layer_norm (bool): see :func:`~mpo_torchrl.modules.make_mlp`.
        num_blocks (int): see :func:`~mpo_torchrl.modules.make_mlp`.
        num_outputs (int): 1 for a value; as many as the critic part reads of each action: the
            atoms of a :class:`~mpo_torchrl.critic.CategoricalCritic`, for example.
        in_key (NestedKey): where the observation is.
        action_key (NestedKey): where the action is.

    Returns:
        list[ValueOperator]: each writes ``"state_action_value"`` ``[*B, num_outputs]``.

    Raises:
        ValueError: if ``num_critics`` or ``num_outputs`` is below 1.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from mpo_torchrl.modules import make_critics
        >>> len(make_critics(3, Bounded(-2.0, 2.0, shape=(1,))))
        2
    """
    if num_critics < 1:
        raise ValueError(f"num_critics must be at least 1, got {num_critics}.")
    if num_outputs < 1:
        raise ValueError(f"num_outputs must be at least 1, got {num_outputs}.")
    return [
        ValueOperator(
            ActionValueMLP(
                observation_size,
                action_spec,
                num_cells=num_cells,
                layer_norm=layer_norm,
                num_blocks=num_blocks,
                num_outputs=num_outputs,
            ),
            in_keys=[in_key, action_key],
            out_keys=["state_action_value"],  # its guess unless the action is "action"
        )
        for _ in range(num_critics)
    ]


def make_value_network(
    observation_size: int,
    *,
    num_cells: Sequence[int] = (256, 256),
    layer_norm: bool = True,
    in_key: NestedKey = "observation",
    out_key: NestedKey = "state_value",
) -> ValueOperator:
    """The value of a state.

    Args:
        observation_size (int): size of the observation vector.

    Keyword Args:
        num_cells (sequence of int): width of each hidden layer.
        layer_norm (bool): see :func:`~mpo_torchrl.modules.make_mlp`.
        in_key (NestedKey): where the observation is.
        out_key (NestedKey): where the value goes, ``[*B, 1]``.

    Returns:
        ValueOperator: writes ``[*B, 1]``, unit of return.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.modules import make_value_network
        >>> make_value_network(3)(observation=torch.zeros(5, 3)).shape
        torch.Size([5, 1])
    """
    network = make_mlp(observation_size, 1, num_cells, layer_norm=layer_norm)
    return ValueOperator(network, in_keys=[in_key], out_keys=[out_key])
