"""The environment of a run: float32, actions clipped at the door, faults named."""

from __future__ import annotations

from functools import partial

import gymnasium
import torch
from torchrl.data.tensor_specs import Bounded, Composite
from torchrl.envs import (
    Compose,
    DoubleToFloat,
    EnvBase,
    GymWrapper,
    RewardSum,
    SerialEnv,
    Transform,
    TransformedEnv,
)

from mpo_torchrl.trainer.config import MPOConfig, SettingError
from mpo_torchrl.trainer.episode import EpisodeMemory


class ClipAction(Transform):
    """Clips the action to its bounds on the way into the environment.

    An unsquashed Gaussian also draws actions outside the bounds, and some environments charge for
    what they cannot execute. The replay buffer keeps the action as drawn; critics clip it as well.
    """

    def __init__(self, low: torch.Tensor, high: torch.Tensor) -> None:
        super().__init__(in_keys_inv=["action"], out_keys_inv=["action"])
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def _inv_apply_transform(self, action: torch.Tensor) -> torch.Tensor:
        return action.clamp(self.low, self.high)


def make_training_env(config: MPOConfig) -> EnvBase:
    """The environments that a run collects from, ``num_envs`` of them stepped together."""
    return make_env(config.env, num_envs=config.num_envs)


def make_env(name: str, *, num_envs: int = 1, render: bool = False) -> EnvBase:
    """A Gymnasium environment for continuous control, behind TorchRL's interface.

    Observations, actions and rewards are float32. ``("next", "episode_reward")`` holds the return
    of the episode so far.

    Args:
        name (str): Gymnasium id, e.g. ``"Pendulum-v1"``.

    Keyword Args:
        num_envs (int): with more than one, entries are ``[num_envs, ...]``.
        render (bool): let ``env.render()`` give pictures, ``[H, W, 3]`` bytes.

    Returns:
        EnvBase: keys ``observation``, ``action``, ``("next", "reward")`` and the done flags.

    Raises:
        SettingError: if the id is unknown, a package is missing, the action space is not a bounded
            box or there is no flat ``observation``.

    Examples:
        >>> env = make_env("Pendulum-v1")
        >>> env.rollout(3)["observation"].shape
        torch.Size([3, 3])
    """
    base = _gym_env(name, render)
    _check_observation(name, base)
    action_spec = _check_action(name, base)
    if num_envs > 1:
        base.close()
        base = SerialEnv(num_envs, partial(_gym_env, name, render))
    env = TransformedEnv(base, Compose(RewardSum()), auto_unwrap=True)
    env.append_transform(ClipAction(action_spec.space.low, action_spec.space.high))
    dtypes = {spec.dtype for spec in env.specs.values(include_nested=True, leaves_only=True)}
    if torch.float64 in dtypes:
        env.append_transform(DoubleToFloat())
    return env


def _gym_env(name: str, render: bool) -> EnvBase:
    try:
        # TorchRL's GymEnv would pass on a frameskip that is Atari's, which own classes refuse.
        env = gymnasium.make(name, render_mode="rgb_array" if render else None)
        return TransformedEnv(GymWrapper(env), EpisodeMemory())
    except gymnasium.error.DependencyNotInstalled as error:
        remedy = "; pip install 'mpo_torchrl[recipes]'" if "mujoco" in str(error).lower() else ""
        raise SettingError(f"env {name!r} needs a missing package: {error}{remedy}") from error
    except (gymnasium.error.Error, ImportError) as error:
        raise SettingError(f"env {name!r} cannot be made: {error}") from error


def _check_observation(name: str, env: EnvBase) -> None:
    spec = env.observation_spec
    if "observation" not in spec.keys():
        found = sorted(str(key) for key in spec.keys() if key != "episode_reward")
        raise SettingError(
            f"env {name!r} must have the key 'observation', got {found}; flatten a dict of "
            "observations, e.g. with gymnasium.wrappers.FlattenObservation."
        )
    observation = spec["observation"]
    if observation.ndim != 1 or not observation.dtype.is_floating_point:
        raise SettingError(
            f"env {name!r} must have a flat observation of real numbers, got shape "
            f"{tuple(observation.shape)} and {observation.dtype}."
        )


def _check_action(name: str, env: EnvBase) -> Bounded:
    spec = env.full_action_spec.get("action", None)
    if spec is None or isinstance(spec, Composite):
        raise SettingError(f"env {name!r} must have a box as action space, got a dict.")
    kind = type(spec).__name__
    if not spec.dtype.is_floating_point:
        raise SettingError(
            f"env {name!r} must have continuous actions, got a discrete space ({kind})."
        )
    if spec.ndim != 1:
        raise SettingError(f"env {name!r} must have flat actions, got shape {tuple(spec.shape)}.")
    bounded = isinstance(spec, Bounded) and (spec.space.high - spec.space.low).isfinite().all()
    if not bounded:
        raise SettingError(
            f"env {name!r} must have bounded actions, got {kind} with an infinite side; rescale "
            "them, e.g. with gymnasium.wrappers.RescaleAction."
        )
    return spec
