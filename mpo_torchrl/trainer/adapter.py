"""How one component of a checkpoint is written and read, without ever running code from a file."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torchrl.checkpoint import CheckpointAdapter


class DimensionError(ValueError):
    """What the file holds does not fit the component."""


class DamagedError(ValueError):
    """The file is not what was written."""


class WeightsOnlyAdapter(CheckpointAdapter):
    """Keeps a ``state_dict`` in one file that :func:`torch.load` reads with ``weights_only``."""

    adapter_id = "mpo_torchrl.weights_only"
    filename = "state.pt"

    def read(self, component: Any) -> Mapping[str, Any]:
        """The component's state: tensors and plain values."""
        return component.state_dict()

    def write(self, component: Any, state: Mapping[str, Any]) -> None:
        """Bring the component to a state."""
        check_shapes(state, component.state_dict())
        component.load_state_dict(state)

    def save(
        self, component: Any, path: Path, *, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Write the component's state into the folder ``path``."""
        path.mkdir(parents=True)
        torch.save(self.read(component), path / self.filename)

    def load(
        self,
        component: Any,
        path: Path,
        *,
        map_location: Any,
        tensor_load_kwargs: Mapping[str, Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        """Read the component's state from the folder ``path``; code in it is refused."""
        self.write(component, load_tensors(path / self.filename, map_location))


def load_tensors(path: Path, map_location: Any = "cpu") -> Any:
    """What :func:`torch.save` wrote: tensors and plain values, checked; anything else is refused.

    Raises:
        DamagedError: if the file is not as it was written; ``torch.load`` itself reads on.
        UnpicklingError: if it holds something other than tensors and plain values.
    """
    if not zipfile.is_zipfile(path):  # what torch wrote before 1.6, or half a file
        raise DamagedError(f"{path.name} is incomplete")
    with zipfile.ZipFile(path) as file:
        if file.testzip() is not None:
            raise DamagedError(f"{path.name} is not what was written")
    return torch.load(path, map_location=map_location, weights_only=True)


def check_shapes(state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Compare before anything is overwritten: a half-loaded network is worse than none."""
    for name, value in own.items():
        if not isinstance(value, torch.Tensor):
            continue
        if not isinstance(state.get(name), torch.Tensor):
            raise DimensionError(f"it lacks {name!r}")
        if state[name].shape != value.shape:
            raise DimensionError(
                f"{name!r} is {list(state[name].shape)} in the file, {list(value.shape)} here"
            )
