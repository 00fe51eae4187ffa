"""The environment of a run: float32, actions clipped at the door, faults named."""

from __future__ import annotations

import difflib
import os
import signal
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import gymnasium
import torch
from tensordict import TensorDictBase
from torchrl.data.tensor_specs import Bounded, Composite, OneHot, Unbounded
from torchrl.envs import (
    CatTensors,
    Compose,
    DMControlEnv,
    DoubleToFloat,
    EnvBase,
    FlattenObservation,
    GymWrapper,
    InitTracker,
    ObservationTransform,
    ParallelEnv,
    RewardSum,
    SerialEnv,
    TensorDictPrimer,
    Transform,
    TransformedEnv,
)

from mpo_torchrl.modules import make_torso
from mpo_torchrl.modules.recurrent import ACTOR_STATE, Cell
from mpo_torchrl.trainer.config import RunConfig
from mpo_torchrl.trainer.episode import EpisodeMemory
from mpo_torchrl.trainer.seeding import keep_random_state
from mpo_torchrl.trainer.settings import SettingError

SUITE = "dm_control/"
"""What the names of the DeepMind Control Suite begin with."""

SEVERAL_REWARDS = ("mo-", "mo_gymnasium:")
"""What the names of MO-Gymnasium's environments begin with."""


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


class HideEntries(ObservationTransform):
    """Leaves numbers out of the observation: what remains does not tell the whole state.

    Args:
        size (int): size of the observation vector.
        hidden (sequence of int): places of the numbers to leave out.
    """

    def __init__(self, size: int, hidden: Sequence[int]) -> None:
        super().__init__(in_keys=["observation"], out_keys=["observation"])
        self.register_buffer("seen", torch.tensor([i for i in range(size) if i not in hidden]))

    def _apply_transform(self, observation: torch.Tensor) -> torch.Tensor:
        return observation[..., self.seen]

    def _reset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        return self._call(tensordict_reset)

    def transform_observation_spec(self, observation_spec: Composite) -> Composite:
        """The specs, with that of what is left: numbers without bounds."""
        whole = observation_spec["observation"]
        shape = (*whole.shape[:-1], len(self.seen))
        observation_spec["observation"] = Unbounded(shape, dtype=whole.dtype, device=whole.device)
        return observation_spec


def _hide(name: str, env: EnvBase, hidden: Sequence[int]) -> HideEntries:
    size = env.observation_spec["observation"].shape[-1]
    if max(hidden) >= size or len(set(hidden)) == size:
        raise SettingError(
            f"hidden_observation must leave something of the {size} numbers that env {name!r} "
            f"shows, at places 0 to {size - 1}, got {list(hidden)}."
        )
    return HideEntries(size, hidden)


def make_primer(recurrent: str, state_size: int) -> TensorDictPrimer:
    """What puts the empty state of a recurrent policy where an episode begins."""
    with keep_random_state():  # the module is only asked for its keys and sizes
        torso = make_torso(1, state_size, cell=cast(Cell, recurrent), state_key=ACTOR_STATE)
    return torso.make_tensordict_primer()


def make_training_env(config: RunConfig) -> EnvBase:
    """The environments that a run collects from: ``num_envs`` of them, stepped together.

    Args:
        config (RunConfig): which environment, how many, and how they are stepped.

    Returns:
        EnvBase: as :func:`~mpo_torchrl.trainer.make_env` makes it.

    Raises:
        SettingError: as :func:`~mpo_torchrl.trainer.make_env`.

    Examples:
        >>> from mpo_torchrl.trainer import MPOConfig
        >>> make_training_env(MPOConfig(env="Pendulum-v1", num_envs=2)).batch_size
        torch.Size([2])
    """
    return make_env(
        config.env,
        num_envs=config.num_envs,
        processes=config.env_processes,
        **env_settings(config),
    )


def env_settings(config: RunConfig) -> dict[str, Any]:
    """How each environment of a run is made, in training and evaluation: keywords of make_env."""
    return {
        "action_repeat": config.action_repeat,
        "frame_skip": config.frame_skip,
        "discrete": config.policy == "categorical",
        "num_rewards": len(config.bounds) or 1,
        "hidden": config.hidden_observation,
        "recurrent": config.recurrent,
        "state_size": config.state_size,
    }


def make_env(
    name: str,
    *,
    num_envs: int = 1,
    processes: bool = False,
    action_repeat: int = 1,
    frame_skip: int = 0,
    discrete: bool = False,
    num_rewards: int = 1,
    hidden: Sequence[int] = (),
    recurrent: str = "none",
    state_size: int = 0,
    render: bool = False,
) -> EnvBase:
    """A task of control, from Gymnasium or dm_control, behind TorchRL's interface.

    Observations, actions and rewards are float32. ``("next", "episode_reward")`` holds the return
    of the episode so far.

    Args:
        name (str): Gymnasium id, e.g. ``"HalfCheetah-v5"``, or ``"module:id"`` where importing the
            module registers it; or a task of the DeepMind Control Suite, e.g.
            ``"dm_control/walker-walk"``, whose observations are put side by side; or an
            environment of MO-Gymnasium with several rewards, e.g. ``"mo-halfcheetah-v5"``.

    Keyword Args:
        num_envs (int): with more than one, entries are ``[num_envs, ...]``.
        processes (bool): step each of several environments in a process of its own.
        action_repeat (int): steps of the environment for which an action is held; rewards are
            summed, and the end of an episode ends the repetition. A step is then an action.
        frame_skip (int): steps of the simulator in one step of a MuJoCo environment of Gymnasium;
            0 leaves its own number. What an action can do in one step changes with it.
        discrete (bool): whether actions are one of a number, one-hot, or else real numbers.
        num_rewards (int): how many rewards a step has, ``K``.
        hidden (sequence of int): numbers of the observation, by place, that are left out.
        recurrent (str): kind of a recurrent policy's memory, ``"gru"`` or ``"lstm"``, whose state
            then goes from step to step, and is empty where an episode begins; or ``"none"``.
        state_size (int): size of that state.
        render (bool): let ``env.render()`` give pictures, ``[H, W, 3]`` bytes.

    Returns:
        EnvBase: keys ``observation``, ``action``, ``("next", "reward")`` ``[K]`` and the done
        flags.

    Raises:
        SettingError: if the id is unknown, a package is missing, the action space is not the kind
            asked for, or a box without bounds, there is no flat ``observation``, or another
            number of rewards.

    Examples:
        >>> env = make_env("Pendulum-v1")
        >>> env.rollout(3)["observation"].shape
        torch.Size([3, 3])
    """
    make_one = partial(_simulator, name, action_repeat, frame_skip, render)
    base = one = make_one()
    on_suite = name.startswith(SUITE)
    if not on_suite:
        _check_observation(name, one)
    _check_reward(name, one, num_rewards)
    action_spec = _check_discrete(name, one) if discrete else _check_action(name, one)
    if num_envs > 1:
        one.close()
        if processes:
            base = ParallelEnv(num_envs, partial(_undisturbed, os.getpid(), make_one))
        else:
            base = SerialEnv(num_envs, make_one)
    env = TransformedEnv(base, Compose(RewardSum()), auto_unwrap=True)
    if on_suite:
        env.append_transform(CatTensors(list(one.observation_spec.keys()), "observation"))
    if hidden:
        env.append_transform(_hide(name, env, hidden))
    if recurrent != "none":
        env.append_transform(InitTracker())
        env.append_transform(make_primer(recurrent, state_size))
    if not discrete:
        env.append_transform(ClipAction(action_spec.space.low, action_spec.space.high))
    dtypes = {spec.dtype for spec in env.specs.values(include_nested=True, leaves_only=True)}
    if torch.float64 in dtypes:
        env.append_transform(DoubleToFloat())
    return env


def _undisturbed(main_process: int, make_one: Callable[[], EnvBase]) -> EnvBase:
    """Make an environment; where that is in a process of its own, leave Ctrl-C to the main one.

    A terminal sends it to all of them, and the main one still asks for the environments' states.
    """
    if os.getpid() != main_process:  # TorchRL makes one in the main process, too, to know it
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return make_one()


def _simulator(name: str, action_repeat: int, frame_skip: int, render: bool) -> EnvBase:
    """One environment as its package makes it."""
    if name.startswith(SUITE):
        return _suite_env(name, action_repeat, frame_skip)
    settings: dict[str, Any] = {}  # what is not asked for is not named: own classes may not know it
    if frame_skip:
        settings["frame_skip"] = frame_skip
    if render:
        settings["render_mode"] = "rgb_array"
    try:
        # TorchRL's GymEnv would pass on a frameskip that is Atari's.
        env = _maker(name)(name, **settings)
    except gymnasium.error.DependencyNotInstalled as error:
        remedy = "; pip install 'mpo_torchrl[mujoco]'" if "mujoco" in str(error).lower() else ""
        raise SettingError(f"env {name!r} needs a missing package: {error}{remedy}") from error
    except (gymnasium.error.Error, ImportError) as error:
        raise SettingError(f"env {name!r} cannot be made: {error}") from error
    except TypeError as error:
        if frame_skip and "frame_skip" in str(error):
            raise _no_frame_skip(name, frame_skip) from error
        if render and "render_mode" in str(error):
            raise SettingError(
                f"env {name!r} cannot be drawn, it takes no render_mode; without a film: "
                "video=false."
            ) from error
        raise
    return TransformedEnv(GymWrapper(env, frame_skip=action_repeat), EpisodeMemory())


def _maker(name: str) -> Callable[..., gymnasium.Env[Any, Any]]:
    """Gymnasium's ``make``, or for its own environments that of MO-Gymnasium.

    Theirs leaves out Gymnasium's checker, which takes several rewards for a mistake.
    """
    if not name.startswith(SEVERAL_REWARDS):
        return gymnasium.make
    try:
        import mo_gymnasium  # its environments are known from here on
    except ImportError as error:
        raise SettingError(
            f"env {name!r} needs a missing package: {error}; pip install "
            "'mpo_torchrl[multi_objective]'."
        ) from error
    return mo_gymnasium.make


def _suite_env(name: str, action_repeat: int, frame_skip: int) -> EnvBase:
    """A task of the DeepMind Control Suite. Its time limit truncates, it does not terminate."""
    if frame_skip:
        raise _no_frame_skip(name, frame_skip)
    try:
        with warnings.catch_warnings():  # a machine without a display is no reason to complain
            warnings.simplefilter("ignore")
            from dm_control import suite  # type: ignore[import-untyped]
    except ImportError as error:
        raise SettingError(
            f"env {name!r} needs a missing package: {error}; pip install 'mpo_torchrl[dm_control]'."
        ) from error
    tasks = [f"{SUITE}{domain}-{task}" for domain, task in suite.ALL_TASKS]
    if name not in tasks:
        (nearest,) = difflib.get_close_matches(name, tasks, n=1, cutoff=0.0)
        raise SettingError(f"env {name!r} is not in dm_control; the nearest one is {nearest!r}.")
    domain, _, task = name.removeprefix(SUITE).partition("-")
    env = DMControlEnv(domain, task, frame_skip=action_repeat)
    env._env.render = partial(env._env.physics.render, camera_id=0)  # as Gymnasium's have it
    flat = TransformedEnv(env, EpisodeMemory())
    for key, spec in env.observation_spec.items():
        if spec.ndim > 1:  # such as positions of several joints
            flat.append_transform(FlattenObservation(-spec.ndim, -1, in_keys=[key]))
    return flat


def _no_frame_skip(name: str, frame_skip: int) -> SettingError:
    return SettingError(
        f"frame_skip must be 0 for env {name!r}, whose simulator has no such setting, got "
        f"{frame_skip}; action_repeat holds an action for several steps of any environment."
    )


def _check_observation(name: str, env: EnvBase) -> None:
    spec = env.observation_spec
    if "observation" not in spec.keys():
        found = sorted(str(key) for key in spec.keys() if key != "episode_reward")
        raise SettingError(
            f"env {name!r} must have the key 'observation', got {found}; flatten a dict of "
            "observations, e.g. with gymnasium.wrappers.FlattenObservation."
        )
    others = sorted(str(key) for key in spec.keys() if key not in ("observation", "episode_reward"))
    if others:
        raise SettingError(
            f"env {name!r} shows {others} beside 'observation', which would not be seen; flatten "
            "the dict of observations, e.g. with gymnasium.wrappers.FlattenObservation."
        )
    observation = spec["observation"]
    if observation.ndim != 1 or not observation.dtype.is_floating_point:
        raise SettingError(
            f"env {name!r} must have a flat observation of real numbers, got shape "
            f"{tuple(observation.shape)} and {observation.dtype}."
        )


def _check_reward(name: str, env: EnvBase, num_rewards: int) -> None:
    found = env.reward_spec.shape[-1]
    if found != num_rewards:
        raise SettingError(
            f"env {name!r} must have as many rewards as epsilons has bounds (one without "
            f"epsilons), got {found} reward(s) for {num_rewards}; "
            + (
                "change epsilons to as many bounds, or leave it out."
                if num_rewards > 1
                else "recipes/mpo.py learns from several with epsilons=[...], a bound for each."
            )
        )


def _check_action(name: str, env: EnvBase) -> Bounded:
    spec = env.full_action_spec.get("action", None)
    if spec is None or isinstance(spec, Composite):
        raise SettingError(f"env {name!r} must have a box as action space, got a dict.")
    kind = type(spec).__name__
    if not spec.dtype.is_floating_point:
        remedy = "put them into one discrete action, or a box of real numbers, with a wrapper."
        if type(spec) is OneHot:  # several discrete actions are derived from it
            remedy = "recipes/mpo.py and recipes/vmpo.py learn those with policy=categorical."
        raise SettingError(
            f"env {name!r} must have continuous actions, got a discrete space ({kind}); {remedy}"
        )
    if spec.ndim != 1:
        raise SettingError(f"env {name!r} must have flat actions, got shape {tuple(spec.shape)}.")
    bounded = isinstance(spec, Bounded) and (spec.space.high - spec.space.low).isfinite().all()
    if not bounded:
        raise SettingError(
            f"env {name!r} must have bounded actions, got {kind} with an infinite side; give it a "
            "box with bounds, e.g. with gymnasium.wrappers.TransformAction."
        )
    low, high = spec.space.low.tolist(), spec.space.high.tolist()
    if any(a >= b for a, b in zip(low, high, strict=True)):
        raise SettingError(
            f"env {name!r} must have a choice in every dimension of its actions, got low {low} and "
            f"high {high}; leave out what cannot be chosen, with a wrapper."
        )
    return spec


def _check_discrete(name: str, env: EnvBase) -> OneHot:
    spec = env.full_action_spec.get("action", None)
    if type(spec) is not OneHot:  # several discrete actions are derived from it
        kind = "a dict" if spec is None or isinstance(spec, Composite) else type(spec).__name__
        raise SettingError(
            f"env {name!r} must have one discrete action for policy=categorical, got {kind}; "
            "policy=gaussian is for a box."
        )
    first = env.base_env._env.action_space.start
    if first:
        raise SettingError(
            f"env {name!r} must number its actions from 0, got from {first}; shift them with "
            "gymnasium.wrappers.TransformAction."
        )
    return spec
