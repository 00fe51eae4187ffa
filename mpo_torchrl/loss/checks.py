"""Bad input gets one sentence: the key, what was found, what is expected."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor, nn

from mpo_torchrl.errors import MissingEntryError, listed


def require_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raises ``ValueError`` if an argument is none of its choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {list(choices)}, got {value!r}.")


def require_scoring_dtype(value: object) -> None:
    """Raises ``ValueError`` unless it is ``"auto"`` or a floating-point dtype."""
    if value != "auto" and not (isinstance(value, torch.dtype) and value.is_floating_point):
        raise ValueError(
            f"scoring_dtype must be 'auto' or a dtype such as torch.bfloat16, got {value!r}."
        )


BROUGHT_BY = {
    "temperature": ("epsilon", "init_temperature"),
    "e_step": (
        *("epsilon", "init_temperature", "num_action_samples", "top_k_fraction"),
        *("epsilon_penalty", "init_penalty_temperature"),
    ),
    "m_step": (
        *("epsilon_mean", "epsilon_stddev", "epsilon_policy", "per_dim_constraining"),
        *("init_alpha_mean", "init_alpha_stddev", "init_alpha_policy"),
    ),
}
"""Arguments of the losses that a part of one's own brings itself."""


_NEEDED = {
    "temperature": ("loss",),
    "e_step": ("temperature", "dual_terms", "weighs_taken"),
    "m_step": ("multipliers", "readings"),
}
_SUCH_AS = {
    "temperature": "Temperature or ExactTemperature",
    "e_step": "SampledEStep or BehaviourEStep",
    "m_step": "GaussianMStep or DistributionMStep",
}


def require_parts(given: Mapping[str, object]) -> None:
    """Raises ``TypeError`` if a part of MPOLoss among its arguments cannot be one."""
    for name, attributes in _NEEDED.items():
        part = given[name]
        fits = isinstance(part, nn.Module) and all(hasattr(part, a) for a in attributes)
        if part is not None and not fits:
            raise TypeError(
                f"{name} must be a module such as {_SUCH_AS[name]}, got {type(part).__name__}."
            )


def require_left_out(loss_class: type, given: Mapping[str, object]) -> None:
    """Raises ``ValueError`` if an argument is set that a part among them brings itself."""
    for part, names in BROUGHT_BY.items():
        if given.get(part) is not None:
            for name in names:
                if name in given:
                    require_default(loss_class, part, name, given[name])


def require_default(loss_class: type, part: str, name: str, value: object) -> None:
    """Raises ``ValueError`` if an argument is set that is not read beside a part of one's own."""
    if value != inspect.signature(loss_class).parameters[name].default:
        raise ValueError(
            f"{name} is not read beside an own {part}, which has its own; give it to that "
            f"{part}, or leave it out, got {value!r}."
        )


def require_keys(tensordict: TensorDictBase, keys: Iterable[NestedKey]) -> None:
    """Raises ``KeyError`` if an input is missing, ``ValueError`` if the batch is empty."""
    for key in keys:
        if tensordict.get(key, None) is None:
            raise MissingEntryError(
                f"the batch has no entry {key!r}, it has {listed(tensordict.keys(True, True))}; "
                "rename what the loss reads with set_keys(...)."
            )
    if not tensordict.batch_size.numel():
        raise ValueError(
            f"the batch is empty, its batch size is {list(tensordict.batch_size)}; a loss needs "
            "at least one transition."
        )


def require_action_read(in_keys: list[NestedKey], action_keys: list[NestedKey]) -> None:
    """Raises ``ValueError`` if critics do not read the action whose value they are asked for."""
    unread = [key for key in action_keys if key not in in_keys]
    if unread:
        raise ValueError(
            f"the critic reads {listed(in_keys)} and not the action {unread[0]!r}, so that every "
            "action would have the same value; put it into the critic's in_keys, or name the "
            "action that it reads with set_keys(action=...)."
        )


def require_own_features(
    in_keys: list[NestedKey], written: list[NestedKey], action_keys: list[NestedKey]
) -> None:
    """Raises ``ValueError`` if critics read what only the actor computes, the action apart."""
    foreign = [key for key in in_keys if key in written and key not in action_keys]
    if foreign:
        raise ValueError(
            f"the critic reads {foreign[0]!r}, which the actor writes: what stands in a batch is "
            "stale and there is none of the next state; let the critic compute it from the "
            "observation too, TensorDictSequential(encoder, head) with the actor's own encoder."
        )


def require_action_shape(key: NestedKey, found: torch.Size, expected: tuple[int, ...]) -> None:
    """Raises ``ValueError`` if the batch's actions are not of the policy's size."""
    if found != expected:
        raise ValueError(
            f"the batch holds actions of shape {list(found)} under {key!r}, the policy's are "
            f"{list(expected)}."
        )


def require_reward_shape(
    key: NestedKey, found: torch.Size, batch: torch.Size, size: int = 1
) -> None:
    """Raises ``ValueError`` if rewards are not ``[*B, 1]``, or ``[*B, K]`` for ``K`` objectives."""
    if found != (*batch, size):
        raise ValueError(
            f"the reward under {('next', key)!r} must be [*B, {size}] = {[*batch, size]}, got "
            f"{list(found)}."
        )


def require_flags(tensordict: TensorDictBase, keys: Iterable[NestedKey]) -> None:
    """Raises ``ValueError`` if a flag is no boolean: estimators negate it, and ``~0`` is -1."""
    for key in keys:
        flag = tensordict.get(key, None)
        if flag is not None and flag.dtype != torch.bool:
            raise ValueError(
                f"the flags under {key!r} must be booleans, got {flag.dtype}; convert them with "
                ".bool()."
            )


def require_mask(mask: Tensor, key: NestedKey, entry: Tensor | None) -> None:
    """Raises ``ValueError`` unless it is boolean and over the first dimensions of an entry."""
    shape = mask.shape if entry is None else entry.shape
    if mask.dtype != torch.bool or mask.shape != shape[: mask.ndim]:
        raise ValueError(
            "the mask of a batch must be boolean, [*B] or [*B, 1], got "
            f"{list(mask.shape)} of {mask.dtype}; the entry {key!r} has the shape {list(shape)}."
        )


def one_per_state(key: NestedKey, found: Tensor, batch: torch.Size) -> Tensor:
    """The entry as ``[*B]``; raises ``ValueError`` unless it is that, or ``[*B, 1]``."""
    if found.shape not in (batch, (*batch, 1)):
        raise ValueError(
            f"the entry {key!r} must be [*B] = {list(batch)}, or [*B, 1], got {list(found.shape)}."
        )
    return found.reshape(batch)


def require_finite(tensordict: TensorDictBase, keys: Iterable[NestedKey]) -> None:
    """Raises ``ValueError`` if an input is NaN or infinite; reads the values, so it waits."""
    for key in keys:
        value = tensordict.get(key, None)
        if value is not None and value.is_floating_point() and not bool(value.isfinite().all()):
            count = int((~value.isfinite()).sum())
            raise ValueError(
                f"{count} of the {value.numel()} numbers under {key!r} are NaN or infinite; "
                "a loss on them would destroy the networks."
            )
