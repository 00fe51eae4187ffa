"""Networks that remember: actors and critics for observations that do not tell the whole state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from tensordict import NestedKey
from tensordict.nn import TensorDictSequential
from torchrl.data import TensorSpec
from torchrl.envs.utils import ExplorationType
from torchrl.modules import GRUModule, LSTMModule, ProbabilisticActor

from mpo_torchrl.modules.actor import PolicyKind, make_actor
from mpo_torchrl.modules.critic import make_critics

Cell = Literal["gru", "lstm"]

ACTOR_STATE = "actor_state"
"""Where an actor's state is unless told otherwise."""


def make_torso(
    in_features: int,
    state_size: int,
    *,
    cell: Cell = "gru",
    in_key: NestedKey = "observation",
    out_key: NestedKey = "features",
    state_key: str = "recurrent_state",
) -> GRUModule | LSTMModule:
    """A recurrent module of one layer; one step at a time unless in recurrent mode.

    Args:
        in_features (int): size of what it reads at each step.
        state_size (int): size of what it remembers and writes.

    Keyword Args:
        cell (str): ``"gru"`` or ``"lstm"``.
        in_key (NestedKey): what it reads, beside its state and ``"is_init"``.
        out_key (NestedKey): what it writes.
        state_key (str): where its state is, and after the step under ``"next"``; that of the
            LSTM's cell has ``"_cell"`` added.

    Returns:
        GRUModule or LSTMModule: TorchRL's, of one layer.

    Raises:
        ValueError: if the kind of cell is unknown.

    Examples:
        >>> from mpo_torchrl.modules import make_torso
        >>> make_torso(3, 8).in_keys
        ['observation', 'recurrent_state', 'is_init']
    """
    kinds: dict[str, tuple[Any, list[str]]] = {
        "gru": (GRUModule, [state_key]),
        "lstm": (LSTMModule, [state_key, f"{state_key}_cell"]),
    }
    if cell not in kinds:
        raise ValueError(f"cell must be one of {list(kinds)}, got {cell!r}.")
    kind, states = kinds[cell]
    return kind(
        input_size=in_features,
        hidden_size=state_size,
        in_keys=[in_key, *states, "is_init"],
        out_keys=[out_key, *[("next", key) for key in states]],
    )


def make_recurrent_actor(
    observation_size: int,
    action_spec: TensorSpec,
    *,
    state_size: int = 64,
    cell: Cell = "gru",
    in_key: NestedKey = "observation",
    out_key: NestedKey = "action",
    state_key: str = ACTOR_STATE,
    num_cells: Sequence[int] = (256, 256),
    policy: PolicyKind = "gaussian",
    init_stddev: float = 0.5,
    min_stddev: float = 0.01,
    max_stddev: float | None = None,
    layer_norm: bool = True,
) -> ProbabilisticActor:
    """A policy that remembers: a recurrent torso, and :func:`make_actor`'s network on top.

    In an environment it needs TorchRL's ``InitTracker`` and the torso's
    ``make_tensordict_primer()``, which carry its state from step to step.

    Args:
        observation_size (int): size of the observation vector.
        action_spec (TensorSpec): the action's spec, ``[A]``; its bounds set the scale.

    Keyword Args:
        state_size (int): size of what it remembers.
        cell (str): ``"gru"`` or ``"lstm"``.
        in_key (NestedKey): where the observation is.
        out_key (NestedKey): where the action goes.
        state_key (str): where its state is, see :func:`make_torso`.
        num_cells (sequence of int): width of each hidden layer on top.
        policy (str): as for :func:`make_actor`, and so are the rest.
        init_stddev (float): stddev at the start.
        min_stddev (float): least stddev.
        max_stddev (float, optional): greatest stddev.
        layer_norm (bool): see :func:`~mpo_torchrl.modules.make_mlp`.

    Returns:
        ProbabilisticActor: for one step at a time, or sequences in recurrent mode.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl.data import Bounded
        >>> from torchrl.modules import set_recurrent_mode
        >>> from mpo_torchrl.modules import make_recurrent_actor
        >>> actor = make_recurrent_actor(3, Bounded(-2.0, 2.0, shape=(1,)), state_size=8)
        >>> sequence = TensorDict(
        ...     observation=torch.zeros(5, 7, 3),
        ...     is_init=torch.zeros(5, 7, 1, dtype=torch.bool),
        ...     batch_size=[5, 7],
        ... )
        >>> with set_recurrent_mode(True):
        ...     actor(sequence)["action"].shape
        torch.Size([5, 7, 1])
    """
    features = "actor_features"
    torso = make_torso(
        observation_size,
        state_size,
        cell=cell,
        in_key=in_key,
        out_key=features,
        state_key=state_key,
    )
    head = make_actor(
        state_size,
        action_spec,
        num_cells=num_cells,
        policy=policy,
        init_stddev=init_stddev,
        min_stddev=min_stddev,
        max_stddev=max_stddev,
        layer_norm=layer_norm,
        in_key=features,
        out_key=out_key,
    )
    network, sampling = head.module
    return ProbabilisticActor(
        TensorDictSequential(torso, network),
        in_keys=list(sampling.in_keys),
        out_keys=[out_key],
        spec=action_spec,
        distribution_class=sampling.distribution_class,
        distribution_kwargs=sampling.distribution_kwargs,
        default_interaction_type=ExplorationType.RANDOM,
    )


def make_recurrent_critics(
    observation_size: int,
    action_spec: TensorSpec,
    *,
    num_critics: int = 2,
    state_size: int = 64,
    cell: Cell = "gru",
    in_key: NestedKey = "observation",
    action_key: NestedKey = "action",
    state_key: str = "critic_state",
    num_cells: Sequence[int] = (256, 256),
    layer_norm: bool = True,
    num_blocks: int = 0,
    num_outputs: int = 1,
) -> list[TensorDictSequential]:
    """Critics that remember observations, and read the action after their recurrent torso.

    The torso thus runs once over a sequence, however many actions are scored at each step.

    Args:
        observation_size (int): size of the observation vector.
        action_spec (TensorSpec): the action's spec, ``[A]``.

    Keyword Args:
        num_critics (int): how many, at least 1; each has a torso of its own.
        state_size (int): size of what each remembers.
        cell (str): ``"gru"`` or ``"lstm"``.
        in_key (NestedKey): where the observation is.
        action_key (NestedKey): where the action is.
        state_key (str): where its state is, see :func:`make_torso`.
        num_cells (sequence of int): width of each hidden layer on top.
        layer_norm (bool): see :func:`~mpo_torchrl.modules.make_mlp`.
        num_blocks (int): see :func:`~mpo_torchrl.modules.make_mlp`.
        num_outputs (int): as for :func:`make_critics`.

    Returns:
        list[TensorDictSequential]: each writes ``"state_action_value"`` ``[*B, num_outputs]``.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from mpo_torchrl.modules import make_recurrent_critics
        >>> critics = make_recurrent_critics(3, Bounded(-2.0, 2.0, shape=(1,)))
        >>> critics[0].in_keys
        ['observation', 'critic_state', 'is_init', 'action']
    """
    features = "critic_features"
    heads = make_critics(
        state_size,
        action_spec,
        num_critics=num_critics,
        num_cells=num_cells,
        layer_norm=layer_norm,
        num_blocks=num_blocks,
        num_outputs=num_outputs,
        in_key=features,
        action_key=action_key,
    )
    names: dict[str, Any] = {"in_key": in_key, "out_key": features, "state_key": state_key}
    return [
        TensorDictSequential(make_torso(observation_size, state_size, cell=cell, **names), head)
        for head in heads
    ]
