"""Minari data sets: transitions to learn from, and episodes to record. Needs minari.

They are folders on this machine, in ``$MINARI_DATASETS_PATH`` or ``~/.minari/datasets``; nothing is
ever downloaded.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase

from mpo_torchrl.trainer.config import SettingError

REMEDY = "record one with recipes/record.py"


class Dataset(NamedTuple):
    """A data set in memory."""

    transitions: TensorDictBase  # [T], one episode after the other, real numbers in float32
    returns: Tensor  # [E], of its episodes


def load_dataset(name: str, env_name: str, env: EnvBase) -> Dataset:
    """The transitions of a Minari data set on this machine, as TorchRL reads them.

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
    _check(name, env_name, env)
    # TorchRL's reader writes a copy of its own; it is gone when the data are in memory.
    with tempfile.TemporaryDirectory() as scratch:
        from torchrl.data.datasets import MinariExperienceReplay

        replay = MinariExperienceReplay(
            name, batch_size=None, root=scratch, download=False, load_from_local_minari=True
        )
        data = replay[:].to_tensordict()
    data = data.apply(lambda entry: entry.float() if entry.is_floating_point() else entry)
    episode = data.pop("episode")
    _check_ends(name, episode, data["next", "done"].squeeze(-1))
    _, numbers = episode.unique_consecutive(return_inverse=True)
    returns = torch.zeros(int(numbers[-1]) + 1, dtype=torch.float64)
    returns.index_add_(0, numbers, data["next", "reward"].squeeze(-1).double())
    return Dataset(data, returns.float())


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
        SettingError: if minari is missing, the id cannot be one, or there is such a data set.
    """
    require_new(name)
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


def _play(env: gymnasium.Env[Any, Any], act: Callable[[Any], Any], index: int, seed: int) -> Any:
    """One episode as Minari keeps it.

    Its ``DataCollector`` would fill the same buffer, but wants jax for it.
    """
    from minari.data_collector import EpisodeBuffer

    observation, _ = env.reset(seed=seed)
    observations, steps, over = [observation], [], False
    space = env.action_space
    while not over:
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


def _check(name: str, env_name: str, env: EnvBase) -> None:
    """Everything that can be wrong with a data set and is known without reading it whole."""
    folder = _folder(name)
    import minari

    try:
        dataset = minari.load_dataset(name)
    except FileNotFoundError as error:
        root = Path(minari.storage.local.get_dataset_path())
        there = ", ".join(sorted(minari.list_local_datasets())) or "none"
        raise SettingError(
            f"dataset {name!r} is not in {str(root)!r} (there: {there}); {REMEDY}, or set "
            "MINARI_DATASETS_PATH."
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise SettingError(
            f"dataset {name!r} in {str(folder)!r} cannot be read: {error}."
        ) from error
    recorded = dataset.spec.env_spec
    if recorded is not None and recorded.id != env_name:
        raise SettingError(
            f"dataset {name!r} is of the environment {recorded.id!r}, not of {env_name!r}; set "
            f"env={recorded.id}, or take another data set."
        )
    if not dataset.total_steps:
        raise SettingError(f"dataset {name!r} is empty; {REMEDY}.")
    if dataset.total_episodes < 2:  # which TorchRL's reader stumbles over
        raise SettingError(f"dataset {name!r} must have at least 2 episodes, got 1; {REMEDY}.")
    _check_spaces(name, dataset.spec, env)
    _check_flags(name, folder)


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


def _check_flags(name: str, folder: Path) -> None:
    import h5py  # type: ignore[import-untyped]

    path = folder / "data" / "main_data.hdf5"
    if not path.exists():
        raise SettingError(
            f"dataset {name!r} must be stored as hdf5, which is what TorchRL reads; {path} is "
            "missing."
        )
    with h5py.File(path) as file:
        for episode in file.values():
            for flag in ("terminations", "truncations"):
                if flag not in episode:
                    raise SettingError(
                        f"dataset {name!r} has no {flag} in {episode.name[1:]!r}: without them "
                        f"nobody knows where episodes end; {REMEDY}."
                    )


def _check_ends(name: str, episode: Tensor, done: Tensor) -> None:
    """Raise unless the last step of every episode is flagged as such."""
    last = torch.ones_like(done)
    last[:-1] = episode[1:] != episode[:-1]
    if not done[last].all():
        number = episode[last & ~done][0].item()
        raise SettingError(
            f"dataset {name!r} has episodes whose last step neither terminates nor is truncated, "
            f"number {number} the first; {REMEDY}."
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
