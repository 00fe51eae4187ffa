"""Minari data sets: transitions to learn from, and episodes to record. Needs minari.

They are folders on this machine, in ``$MINARI_DATASETS_PATH`` or ``~/.minari/datasets``; nothing is
ever downloaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor
from torchrl.envs import EnvBase

from mpo_torchrl.trainer.evaluation import MAX_EPISODE_STEPS
from mpo_torchrl.trainer.settings import SettingError

REMEDY = "record one with recipes/record.py"


class Dataset(NamedTuple):
    """A data set in memory."""

    transitions: TensorDict  # [T], one episode after the other, real numbers in float32
    returns: Tensor  # [E], of its episodes


def load_dataset(name: str, env_name: str, env: EnvBase) -> Dataset:
    """The transitions of a Minari data set on this machine, with TorchRL's names.

    They are read with Minari itself: what ``MinariExperienceReplay`` of TorchRL 0.14.1 hands out is
    all zeros, since it lets ``memmap_like``, which copies no content, have the last word.

    Args:
        name (str): its id, e.g. ``"pendulum/medium-v0"``.
        env_name (str): the environment that it must have been recorded on.
        env (EnvBase): that environment.

    Returns:
        Dataset: with ``observation``, ``action`` and, under ``"next"``, ``observation``,
        ``reward``, ``done``, ``terminated`` and ``truncated``.

    Raises:
        SettingError: if minari is missing, or the data set: if it is of another environment, empty,
            of discrete actions, or lacks the flags that tell where episodes end.
    """
    found = _open(name)
    _check(name, found, env_name, env)
    try:
        episodes = [_transitions(episode) for episode in found.iterate_episodes()]
    except KeyError as error:
        raise SettingError(
            f"dataset {name!r} lacks an entry of its episodes, {error}; without the flags "
            f"nobody knows where they end; {REMEDY}."
        ) from error
    for number, episode in enumerate(episodes):
        if not episode["next", "done"][-1]:
            raise SettingError(
                f"dataset {name!r} has an episode whose last step neither terminates nor is "
                f"truncated, number {number}; {REMEDY}."
            )
    returns = torch.stack([episode["next", "reward"].double().sum() for episode in episodes])
    return Dataset(torch.cat(episodes), returns.float())


def _transitions(episode: Any) -> TensorDict:
    """An episode of Minari as ``[T]`` transitions, real numbers in float32."""
    observation = torch.as_tensor(episode.observations, dtype=torch.float32)  # [T + 1, O]
    terminated, truncated, reward = (
        torch.as_tensor(entry, dtype=dtype).unsqueeze(-1)
        for entry, dtype in (
            (episode.terminations, torch.bool),
            (episode.truncations, torch.bool),
            (episode.rewards, torch.float32),
        )
    )
    following = {
        "observation": observation[1:],
        "reward": reward,
        "terminated": terminated,
        "truncated": truncated,
        "done": terminated | truncated,
    }
    size = [len(reward)]
    return TensorDict(
        {
            "observation": observation[:-1],
            "action": torch.as_tensor(episode.actions, dtype=torch.float32),
            "next": TensorDict(following, size),
        },
        size,
    )


def record_dataset(
    name: str,
    env: gymnasium.Env[Any, Any],
    act: Callable[[Any], Any],
    seeds: Iterable[int],
    **metadata: Any,
) -> NDArray[np.float64]:
    """Play an episode for each seed and write them all as a Minari data set.

    Args:
        name (str): the id of the new data set, ``(namespace/)name-v0``.
        env (gymnasium.Env): the environment.
        act (callable): the action for an observation; it is clipped to its bounds, if any.
        seeds (iterable of int): of the resets.
        **metadata: more arguments of ``minari.create_dataset_from_buffers``.

    Returns:
        array: the returns ``[E]`` of the episodes.

    Raises:
        SettingError: if minari is missing, the id cannot be one, there is such a data set, the
            environment cannot be written down, or an episode does not end.
    """
    require_new(name)
    _require_recordable(env)
    import minari

    episodes = [_play(env, act, index, seed) for index, seed in enumerate(seeds)]
    with warnings.catch_warnings():  # about metadata that only matter where data are published
        warnings.filterwarnings("ignore", module="minari")
        minari.create_dataset_from_buffers(name, episodes, env=env, **metadata)
    return np.array([sum(episode.rewards) for episode in episodes])


def require_new(name: str) -> None:
    """Raise a :class:`SettingError` unless a data set of that id can be made."""
    folder = _folder(name)
    if folder.exists():
        raise SettingError(
            f"there is a data set {name!r} in {str(folder.parent)!r}; take another version, or "
            "remove it."
        )


def _require_recordable(env: gymnasium.Env[Any, Any]) -> None:
    """What Minari would only say after all episodes: it writes down how the environment is made."""
    spec = env.spec
    if spec is not None and callable(spec.entry_point):
        raise SettingError(
            f"env {spec.id!r} is registered with its class, and a data set keeps a name for it: "
            "register it with entry_point='module:Class'."
        )


def _play(env: gymnasium.Env[Any, Any], act: Callable[[Any], Any], index: int, seed: int) -> Any:
    """One episode as Minari keeps it.

    Its ``DataCollector`` would fill the same buffer, but wants jax for it.
    """
    from minari.data_collector import EpisodeBuffer

    observation, _ = env.reset(seed=seed)
    observations: list[Any] = [observation]
    steps: list[tuple[Any, float, bool, bool]] = []
    over, space = False, env.action_space
    while not over:
        if len(steps) == MAX_EPISODE_STEPS:
            raise SettingError(
                f"an episode must end to be recorded, and one had no end in {MAX_EPISODE_STEPS:,} "
                "steps: register the environment with max_episode_steps."
            )
        action = act(observation)
        if isinstance(space, gymnasium.spaces.Box):
            action = np.clip(action, space.low, space.high)
        observation, reward, terminated, truncated, _ = env.step(action)
        observations.append(observation)
        steps.append((action, float(reward), bool(terminated), bool(truncated)))
        over = terminated or truncated
    actions, rewards, terminations, truncations = zip(*steps, strict=True)
    return EpisodeBuffer(
        id=index,
        seed=seed,
        observations=np.stack(observations),
        actions=np.stack(actions),
        rewards=list(rewards),
        terminations=list(terminations),
        truncations=list(truncations),
    )


def _open(name: str) -> Any:
    folder = _folder(name)
    import minari

    try:
        return minari.load_dataset(name)
    except FileNotFoundError as error:
        there = ", ".join(sorted(minari.list_local_datasets())) or "none"
        raise SettingError(
            f"dataset {name!r} is not there as {str(folder)!r} (data sets found: {there}); "
            f"{REMEDY}, or set MINARI_DATASETS_PATH."
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise SettingError(
            f"dataset {name!r} in {str(folder)!r} cannot be read: {error}."
        ) from error


def _check(name: str, found: Any, env_name: str, env: EnvBase) -> None:
    """What can be wrong with a data set and is known without reading it."""
    recorded = found.spec.env_spec
    # Of "module:id", as it is named where importing the module registers it, Gymnasium keeps "id".
    if recorded is not None and recorded.id != env_name.rpartition(":")[2]:
        raise SettingError(
            f"dataset {name!r} is of the environment {recorded.id!r}, not of {env_name!r}; set "
            f"env={recorded.id}, or take another data set."
        )
    if not found.total_steps:
        raise SettingError(f"dataset {name!r} is empty; {REMEDY}.")
    _check_spaces(name, found.spec, env)


def _check_spaces(name: str, spec: Any, env: EnvBase) -> None:
    if not isinstance(spec.action_space, gymnasium.spaces.Box):
        raise SettingError(
            f"dataset {name!r} must have continuous actions, a box of real numbers, got "
            f"{spec.action_space}; offline MPO is for those."
        )
    for kind, space, own in (
        ("observations", spec.observation_space, env.observation_spec["observation"]),
        ("actions", spec.action_space, env.action_spec_unbatched),
    ):
        if space.shape != tuple(own.shape):
            raise SettingError(
                f"dataset {name!r} has {kind} of shape {space.shape}, the environment "
                f"{tuple(own.shape)}."
            )


def _folder(name: str) -> Path:
    """Where a data set of that id is, or would be."""
    if find_spec("minari") is None or find_spec("h5py") is None:
        raise SettingError("data sets need minari: pip install 'mpo_torchrl[offline]'.")
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.storage.local import get_dataset_path

    try:
        parse_dataset_id(name)
    except (ValueError, TypeError):  # the latter without a version
        raise SettingError(
            f"dataset must be an id such as pendulum/medium-v0, with its version, got {name!r}."
        ) from None
    return Path(get_dataset_path(name))
