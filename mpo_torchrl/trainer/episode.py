"""The running episode, kept so that an environment can be brought back in the middle of it.

Few simulators give away their whole state. What can always be had is the state of the random
generator before the last reset, and the actions since: the same reset and the same actions lead to
the same state, bit for bit. That they did is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase, Transform


class EpisodeMemory(Transform):
    """Remembers how the running episode began and which actions it saw; its state is that.

    Loading such a state plays the episode again. The transform stands first, next to the
    environment, so that it sees the actions as the environment does. It works inside the processes
    of a :class:`~torchrl.envs.ParallelEnv` too, whose state is that of its environments.

    Examples:
        >>> from torchrl.envs import GymEnv, TransformedEnv
        >>> one, other = (TransformedEnv(GymEnv("Pendulum-v1"), EpisodeMemory()) for _ in range(2))
        >>> last = one.rollout(5, auto_reset=True)[-1]
        >>> other.load_state_dict(one.state_dict())
        >>> torch.equal(one.step(last)["next", "reward"], other.step(last)["next", "reward"])
        True
    """

    def __init__(self) -> None:
        super().__init__()
        # One object, changed in place: TorchRL's clones of a transform share it.
        self._episode: dict[str, Any] = {"generator": None, "actions": [], "observation": {}}

    def _reset_env_preprocess(self, tensordict: TensorDictBase) -> TensorDictBase:
        generator = _generator(self.parent.base_env)
        self._episode["generator"] = None if generator is None else _generator_state(generator)
        return super()._reset_env_preprocess(tensordict)

    def _reset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        self._episode["actions"].clear()
        self._see(tensordict_reset)
        return tensordict_reset

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        action = tensordict.get(self.parent.base_env.action_key)
        self._episode["actions"].append(action.detach().clone())
        self._see(next_tensordict)
        return next_tensordict

    def _see(self, tensordict: TensorDictBase) -> None:
        """Keep what the environment showed last, to know it again."""
        keys = self.parent.base_env.observation_spec.keys(True, True)
        self._episode["observation"] = {str(key): tensordict.get(key) for key in keys}

    def get_extra_state(self) -> dict[str, Any]:
        """The episode so far: generator before the reset, actions ``[T, ...]``, observation."""
        actions = self._episode["actions"]
        return {
            "generator": self._episode["generator"],
            "actions": torch.stack(actions) if actions else None,
            "observation": {key: v.clone() for key, v in self._episode["observation"].items()},
        }

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Play the episode again, up to where it was."""
        env = self.parent.base_env
        generator = _generator(env)
        if generator is None or state["generator"] is None:
            return  # the comparison that follows will not find the same episode
        _set_generator_state(generator, state["generator"])
        self._episode["generator"] = state["generator"]
        self._episode["actions"].clear()
        shown = env.reset()
        self._see(shown)
        for action in () if state["actions"] is None else state["actions"]:
            step = env.step(TensorDict({env.action_key: action}, batch_size=env.batch_size))
            self._step(step, step.get("next"))


def _generator(env: EnvBase) -> np.random.Generator | np.random.RandomState | None:
    """What the resets of an environment draw from: Gymnasium's generator, or dm_control's."""
    simulator = getattr(env, "_env", None)
    generator = getattr(getattr(simulator, "task", None), "random", None)
    if isinstance(generator, np.random.RandomState):
        return generator
    generator = getattr(getattr(simulator, "unwrapped", None), "np_random", None)
    return generator if isinstance(generator, np.random.Generator) else None


def _generator_state(generator: np.random.Generator | np.random.RandomState) -> Any:
    if isinstance(generator, np.random.RandomState):
        return _arrays_to_tensors(generator.get_state(legacy=False))
    return _arrays_to_tensors(generator.bit_generator.state)


def _set_generator_state(
    generator: np.random.Generator | np.random.RandomState, state: Any
) -> None:
    if isinstance(generator, np.random.RandomState):
        generator.set_state(_tensors_to_arrays(state))
    else:
        generator.bit_generator.state = _tensors_to_arrays(state)


def _arrays_to_tensors(value: Any) -> Any:
    """Arrays as int64 tensors: what :func:`torch.load` reads without running code."""
    if isinstance(value, Mapping):
        return {key: _arrays_to_tensors(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.astype(np.int64))
    return value


def _tensors_to_arrays(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tensors_to_arrays(item) for key, item in value.items()}
    if isinstance(value, Tensor):
        return value.numpy().astype(np.uint64)
    return value
