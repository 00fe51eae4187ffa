"""The parts that a loss builds from plain numbers when it is not handed its own."""

from __future__ import annotations

from typing import Any

from mpo_torchrl.dual import (
    ActionPenalty,
    ExactTemperature,
    FixedTemperature,
    KLMultiplier,
    Temperature,
)
from mpo_torchrl.dual.multiplier import Parametrization
from mpo_torchrl.e_step import SampledEStep
from mpo_torchrl.loss.action_space import ActionSpace
from mpo_torchrl.loss.heads import ChoiceSpace, Heads
from mpo_torchrl.m_step import CompositeMStep, DistributionMStep, GaussianMStep


def make_e_step(
    space: ActionSpace | Heads,
    num_action_samples: int,
    temperature: Temperature | ExactTemperature | FixedTemperature,
    epsilon_penalty: float | None,
    init_penalty_temperature: float,
    parametrization: Parametrization,
) -> SampledEStep:
    """Part 2 with its temperature, and with a penalty if the policy can leave its space."""
    penalty = make_penalty(space, epsilon_penalty, init_penalty_temperature, parametrization)
    return SampledEStep(temperature, num_action_samples=num_action_samples, penalty=penalty)


def make_penalty(
    space: ActionSpace | Heads,
    epsilon: float | None,
    init: float,
    parametrization: Parametrization,
) -> ActionPenalty | None:
    """The price of leaving the action space, if the policy can and it is asked for."""
    if epsilon is None or not space.may_leave:
        return None
    return ActionPenalty(epsilon, init, *space.bounds(), parametrization=parametrization)


def make_m_step(
    space: ActionSpace | Heads,
    epsilon: dict[str, float],
    init_alpha: dict[str, float],
    per_dim_constraining: bool,
    parametrization: Parametrization,
) -> GaussianMStep | DistributionMStep | CompositeMStep:
    """Part 4 with its multipliers, decoupled if there is a Gaussian at the policy's base."""
    settings = (epsilon, init_alpha, per_dim_constraining, parametrization)
    if isinstance(space, Heads):
        heads = {name: _make_single(head, *settings) for name, head in space.spaces.items()}
        return CompositeMStep(heads)
    return _make_single(space, *settings)


def _make_single(
    space: ActionSpace | ChoiceSpace, *settings: Any
) -> GaussianMStep | DistributionMStep:
    multipliers = make_multipliers(space, *settings)
    if "policy" in multipliers:
        return DistributionMStep(multipliers["policy"])
    return GaussianMStep(multipliers["mean"], multipliers["stddev"])


def make_multipliers(
    space: ActionSpace | ChoiceSpace | None,
    epsilon: dict[str, float],
    init_alpha: dict[str, float],
    per_dim_constraining: bool,
    parametrization: Parametrization,
) -> dict[str, KLMultiplier]:
    """``"mean"`` and ``"stddev"`` of a policy with a Gaussian at its base, else ``"policy"``."""

    def multiplier(name: str, shape: tuple[int, ...]) -> KLMultiplier:
        return KLMultiplier(
            epsilon[name],
            init_alpha[name],
            shape=shape,
            parametrization=parametrization,
            name=f"epsilon_{name}",
        )

    if space is None or space.gaussian is None:
        return {"policy": multiplier("policy", ())}
    shape = (space.size,) if per_dim_constraining else ()
    return {name: multiplier(name, shape) for name in ("mean", "stddev")}
