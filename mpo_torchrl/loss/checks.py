"""Bad input gets one sentence: the key, what was found, what is expected."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor

from mpo_torchrl.dual import (
    ExactTemperature,
    FixedTemperature,
    KLMultiplier,
    ObjectiveTemperatures,
    Temperature,
)
from mpo_torchrl.e_step import AdvantageEStep, EnumeratedEStep, SampledEStep
from mpo_torchrl.errors import MissingEntryError, listed, require_part
from mpo_torchrl.m_step import (
    CategoricalMStep,
    CompositeMStep,
    DistributionMStep,
    GaussianMStep,
    LikelihoodMStep,
)


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


_E_STEPS = (SampledEStep, EnumeratedEStep, AdvantageEStep)
_M_STEPS = (GaussianMStep, DistributionMStep, CompositeMStep, CategoricalMStep, LikelihoodMStep)


def require_e_step(e_step: object, fitting: tuple[type, ...], needed: tuple[str, ...]) -> None:
    """Raises ``TypeError`` if an own part 2 is that of another loss, or none at all."""
    if e_step is not None:
        require_part("e_step", e_step, fitting, ("temperature", *needed), _E_STEPS)


def require_m_step(m_step: object, fitting: tuple[type, ...]) -> None:
    """Raises ``TypeError`` if an own part 4 is that of another loss, or none at all."""
    if m_step is not None:
        require_part("m_step", m_step, fitting, ("multipliers", "readings"), _M_STEPS)


def require_temperature(temperature: object) -> None:
    """Raises ``TypeError`` if an own dual of the E-step on sampled actions cannot be one."""
    if temperature is not None:
        fitting = (Temperature, ExactTemperature, FixedTemperature)
        others = (ObjectiveTemperatures, KLMultiplier)
        require_part("temperature", temperature, fitting, ("loss",), others)


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
            "observation too, TensorDictSequential(encoder, head) with the actor's own encoder, as "
            "get_value_operator() of an ActorValueOperator is."
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


def require_flag_shapes(
    tensordict: TensorDictBase, keys: Iterable[NestedKey], batch: torch.Size, size: int = 1
) -> None:
    """Raises ``ValueError`` if flags are not ``[*B, 1]``, or one for each of ``K`` objectives."""
    for key in keys:
        flag = tensordict.get(key, None)
        if flag is not None and flag.shape not in ((*batch, 1), (*batch, size)):
            raise ValueError(
                f"the flags under {key!r} must be [*B, 1] = {[*batch, 1]}, got {list(flag.shape)}."
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


def require_given(key: NestedKey, given: object) -> None:
    """Raises ``TypeError`` if what a batch holds of an E-step is no TensorDict."""
    if given is not None and not isinstance(given, TensorDictBase):
        raise TypeError(
            f"the entry {key!r} must be a TensorDict with entries of an E-step, such as 'action', "
            f"got {type(given).__name__}."
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
