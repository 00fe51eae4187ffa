"""Several agents in one batch: what they share, one copy for each of them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tensordict import NestedKey, TensorDictBase


def count_batch_dims(
    action_key: NestedKey | list[NestedKey], batch_dims: int, action_dims: int
) -> int:
    """How many dimensions of an action come before those of the agents.

    As TorchRL has it, agents are a group with a TensorDict of its own, hence a nested key, and
    their dimension follows those of the batch: ``[*B, n, A]`` in a TensorDict ``[*B]``.

    Args:
        action_key (NestedKey or list of NestedKey): where the action is; several heads have no
            agents.
        batch_dims (int): dimensions of the TensorDict.
        action_dims (int): dimensions of the action, without its last one.
    """
    return min(batch_dims, action_dims) if isinstance(action_key, tuple) else action_dims


def share_among_agents(
    tensordict: TensorDictBase,
    action_key: NestedKey | list[NestedKey],
    keys: Iterable[NestedKey],
    priority_weight: NestedKey,
    is_index: bool = False,
) -> TensorDictBase:
    """The batch with rewards and flags for each agent: those of the team are given to all.

    Args:
        tensordict (TensorDictBase): ``[*B]``, left unchanged.
        action_key (NestedKey): actions, ``[*B, n, A]`` if there are agents.
        keys (iterable of NestedKey): entries ``[*B, n, K]``, or ``[*B, K]`` of the team.
        priority_weight (NestedKey): weights of transitions, ``[*B]`` or ``[*B, 1]``, if any.
        is_index (bool): whether actions are whole numbers ``[*B, n]`` instead of vectors.

    Raises:
        ValueError: if an entry is neither.
    """
    if not isinstance(action_key, tuple):
        return tensordict
    agents = _agents(tensordict, action_key, is_index)
    shared = tensordict.copy()
    for key in keys:
        entry = tensordict.get(key, None)
        if entry is None or entry.ndim > len(agents):  # one row an agent already
            continue
        if entry.shape[:-1] != agents[:-1]:
            raise ValueError(
                f"the entry {key!r} must be [*B, n, K] with one row an agent, or [*B, K] of the "
                f"team, for actions {[*agents, 'A']} under {action_key!r}, got "
                f"{list(entry.shape)}."
            )
        shared.set(key, entry.unsqueeze(-2).expand(*agents, entry.shape[-1]))
    weight = tensordict.get(priority_weight, None)
    if weight is not None and weight.numel() == agents[:-1].numel():
        shared.set(priority_weight, weight.reshape(*agents[:-1], 1).expand(agents))
    return shared


def _agents(tensordict: TensorDictBase, action_key: tuple[str, ...], is_index: bool) -> torch.Size:
    """``[*B, n]``, with an action in each row; ``[*B]`` where no dimension is one of agents."""
    shape = tensordict.get(action_key).shape
    # A whole number may stand in a column of its own; a group says whether it has agents.
    rows = max(tensordict.batch_dims, tensordict.get(action_key[:-1]).batch_dims)
    has_column = len(shape) > rows and shape[-1] == 1
    return shape if is_index and not has_column else shape[:-1]
