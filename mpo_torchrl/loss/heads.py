"""A policy with several heads, and its actions side by side in one tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import NestedKey, TensorDictBase, unravel_key
from tensordict.nn import CompositeDistribution, ProbabilisticTensorDictModule
from torch import Tensor, nn
from torchrl.data import Composite, TensorSpec

from mpo_torchrl.distributions import head_name, is_index, join_heads
from mpo_torchrl.loss.action_space import ActionSpace, known_spec
from mpo_torchrl.loss.networks import sampling_module


class ChoiceSpace:
    """What a loss must know of a head that chooses among a number of actions.

    Args:
        spec (TensorSpec): of the head's action: one-hot ``[K]``, or its index ``[]`` or ``[1]``.
        index (bool): whether the action is an index.
    """

    gaussian = None
    may_leave = False

    def __init__(self, spec: TensorSpec, index: bool) -> None:
        self.size = 1 if index else int(spec.shape[-1])


class Heads:
    """The action space of a policy with several heads.

    A head is one entry of a :class:`~tensordict.nn.CompositeDistribution`: a continuous one with a
    last dimension, or a choice, one-hot or by its index. Side by side they are one action
    ``[*B, A]`` of real numbers, an index as one of them.

    Args:
        actor_network (nn.Module): the actor, whose distribution is composite.
        action_spec (TensorSpec, optional): the specs of all heads; by default the actor's.

    Raises:
        ValueError: if the spec does not hold every head, one of them has agents, or a name stands
            for two of them.
    """

    def __init__(self, actor_network: nn.Module, action_spec: TensorSpec | None) -> None:
        spec = known_spec(actor_network, action_spec)
        kwargs = sampling_module(actor_network).distribution_kwargs
        kinds = {unravel_key(key): kind for key, kind in kwargs["distribution_map"].items()}
        renamed = {unravel_key(key): name for key, name in (kwargs.get("name_map") or {}).items()}
        extra = {unravel_key(key): v for key, v in (kwargs.get("extra_kwargs") or {}).items()}
        self.keys: list[NestedKey] = []
        self.spaces: dict[str, ActionSpace | ChoiceSpace] = {}
        self._indices: dict[str, bool] = {}
        self._shapes: list[torch.Size] = []
        for key, kind in kinds.items():
            action_key = unravel_key(renamed.get(key, key))
            name = head_name(action_key)
            if name in self.spaces:
                raise ValueError(f"two heads of the policy are called {name!r}; rename one.")
            self.keys.append(action_key)
            head_spec = _spec_of(spec, action_key)
            self._indices[name] = is_index(kind)
            self._shapes.append(head_spec.shape)
            self.spaces[name] = _space_of(action_key, head_spec, kind, extra.get(key, {}))

    @property
    def may_leave(self) -> bool:
        """Whether some head may draw actions outside its bounds."""
        return any(space.may_leave for space in self.spaces.values())

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds ``[A]``; out of reach for heads that stay within theirs."""
        lows, highs = [], []
        for space in self.spaces.values():
            if isinstance(space, ActionSpace) and space.may_leave:
                low, high = space.bounds()
            else:
                high = torch.full((space.size,), torch.finfo(torch.float32).max)
                low = -high
            lows.append(low)
            highs.append(high)
        return torch.cat(lows), torch.cat(highs)

    def taken(self, tensordict: TensorDictBase, keys: list[NestedKey]) -> Tensor:
        """The actions in a batch, side by side: ``[*B, A]``."""
        entries = [tensordict.get(key) for key in keys]
        indices = [
            index and not _has_last_dim(shape)
            for index, shape in zip(self._indices.values(), self._shapes, strict=True)
        ]
        return join_heads(entries, indices)

    def split(self, action: Tensor, keys: list[NestedKey]) -> dict[NestedKey, Tensor]:
        """Actions ``[..., A]`` as a critic finds them in a batch, head by head."""
        sizes = [space.size for space in self.spaces.values()]
        parts = action.split(sizes, -1)
        entries: dict[NestedKey, Tensor] = {}
        heads = zip(keys, parts, self._indices.values(), self._shapes, strict=True)
        for key, part, index, shape in heads:
            part = part.long() if index else part
            entries[key] = part if not index or _has_last_dim(shape) else part.squeeze(-1)
        return entries


def find_action_space(
    actor_network: nn.Module, action_spec: TensorSpec | None
) -> ActionSpace | Heads:
    """The action space of an actor with one head or several."""
    if sampling_module(actor_network).distribution_class is CompositeDistribution:
        return Heads(actor_network, action_spec)
    action_key: NestedKey = actor_network.dist_sample_keys[0]  # type: ignore[index]
    return ActionSpace(actor_network, action_key, action_spec)


def _has_last_dim(shape: torch.Size) -> bool:
    return shape[-1:] == (1,)


def _spec_of(spec: TensorSpec | None, key: NestedKey) -> TensorSpec:
    found = spec.get(key, None) if isinstance(spec, Composite) else None
    if found is None or isinstance(found, Composite):
        raise ValueError(
            f"the spec of the head {key!r} is not known: pass action_spec=Composite(...) to the "
            "loss, or build the actor with spec=Composite(...), with an entry for each head."
        )
    if found.ndim > 1:
        raise ValueError(
            f"the action of the head {key!r} must be a vector or an index, got a spec of shape "
            f"{list(found.shape)}; agents with several heads are not supported, and a spec is that "
            "of one environment (action_spec_unbatched)."
        )
    return found


def _space_of(
    key: NestedKey, spec: TensorSpec, kind: type, kwargs: Mapping[str, Any]
) -> ActionSpace | ChoiceSpace:
    if spec.domain == "discrete":
        return ChoiceSpace(spec, is_index(kind))
    head = ProbabilisticTensorDictModule(
        ["loc", "scale"], [key], distribution_class=kind, distribution_kwargs=dict(kwargs)
    )
    return ActionSpace(head, key, spec)
