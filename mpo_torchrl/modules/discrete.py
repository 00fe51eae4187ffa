"""Actor and critic networks for discrete actions."""

from __future__ import annotations

from collections.abc import Sequence

from tensordict import NestedKey
from tensordict.nn import TensorDictModule
from torch import distributions as d
from torch import nn
from torchrl.data import Categorical, OneHot, TensorSpec
from torchrl.envs.utils import ExplorationType
from torchrl.modules import OneHotCategorical, ProbabilisticActor

from mpo_torchrl.modules.mlp import PolicyNetwork, make_mlp


def make_discrete_actor(
    observation_size: int,
    action_spec: TensorSpec,
    *,
    num_cells: Sequence[int] = (256, 256),
    layer_norm: bool = True,
    in_key: NestedKey = "observation",
    out_key: NestedKey = "action",
) -> ProbabilisticActor:
    """A policy network that begins with nearly equal probabilities.

    Args:
        observation_size (int): size of the observation vector.
        action_spec (TensorSpec): ``OneHot`` or ``Categorical``; actions are written as it says.

    Keyword Args:
        num_cells (sequence of int): width of each hidden layer.
        layer_norm (bool): see :func:`~mpo_torchrl.modules.make_mlp`.
        in_key (NestedKey): where the observation is.
        out_key (NestedKey): where the action goes.

    Returns:
        ProbabilisticActor: samples when exploring, takes the likeliest when deterministic.

    Raises:
        ValueError: if the actions are not discrete.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl.data import OneHot
        >>> from mpo_torchrl.modules import make_discrete_actor
        >>> actor = make_discrete_actor(4, OneHot(2))
        >>> actor(TensorDict(observation=torch.zeros(5, 4), batch_size=5))["action"].shape
        torch.Size([5, 2])
    """
    num_actions = _count_actions(action_spec)
    body = make_mlp(observation_size, num_actions, num_cells, layer_norm=layer_norm)
    return ProbabilisticActor(
        TensorDictModule(PolicyNetwork(body), [in_key], ["logits"]),
        in_keys=["logits"],
        out_keys=[out_key],
        spec=action_spec,
        distribution_class=OneHotCategorical if isinstance(action_spec, OneHot) else d.Categorical,
        default_interaction_type=ExplorationType.RANDOM,
    )


def make_discrete_critics(
    observation_size: int,
    action_spec: TensorSpec,
    *,
    num_critics: int = 2,
    num_cells: Sequence[int] = (256, 256),
    layer_norm: bool = True,
    num_blocks: int = 0,
    in_key: NestedKey = "observation",
) -> list[TensorDictModule]:
    """Critics that value every action, from different draws.

    Args:
        observation_size (int): size of the observation vector.
        action_spec (TensorSpec): ``OneHot`` or ``Categorical``.

    Keyword Args:
        num_critics (int): how many, at least 1.
        num_cells (sequence of int): width of each hidden layer.
        layer_norm (bool): see :func:`~mpo_torchrl.modules.make_mlp`.
        num_blocks (int): see :func:`~mpo_torchrl.modules.make_mlp`.
        in_key (NestedKey): where the observation is.

    Returns:
        list[TensorDictModule]: each writes ``"action_value"`` ``[*B, A]``.

    Raises:
        ValueError: if ``num_critics`` is below 1 or the actions are not discrete.

    Examples:
        >>> from torchrl.data import OneHot
        >>> from mpo_torchrl.modules import make_discrete_critics
        >>> len(make_discrete_critics(4, OneHot(2)))
        2
    """
    if num_critics < 1:
        raise ValueError(f"num_critics must be at least 1, got {num_critics}.")
    num_actions = _count_actions(action_spec)

    def make_network() -> nn.Module:
        return make_mlp(
            observation_size, num_actions, num_cells, layer_norm=layer_norm, num_blocks=num_blocks
        )

    return [
        TensorDictModule(make_network(), [in_key], ["action_value"]) for _ in range(num_critics)
    ]


def _count_actions(action_spec: TensorSpec) -> int:
    if type(action_spec) not in (OneHot, Categorical):  # those of several choices derive from them
        raise ValueError(
            "the action spec must be one discrete choice, OneHot or Categorical, got "
            f"{type(action_spec).__name__}; make_actor and make_critics serve continuous actions."
        )
    return int(action_spec.space.n)
