"""One file that brings a learner back: networks, targets, duals, optimizer, counters, settings.

The file is a TorchRL checkpoint archive (:class:`torchrl.checkpoint.Checkpoint`). TorchRL's own
reader of state dicts unpickles what the file asks it to; the one used here reads tensors and plain
values only, so that loading never runs code from a file.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torchrl.checkpoint import Checkpoint, CheckpointAdapter, CheckpointError

from mpo_torchrl.trainer.config import MPOConfig


class DimensionError(ValueError):
    """What the file holds does not fit the component."""


class WeightsOnlyAdapter(CheckpointAdapter):
    """Keeps a ``state_dict`` in one file that :func:`torch.load` reads with ``weights_only``."""

    adapter_id = "mpo_torchrl.weights_only"
    filename = "state.pt"

    def save(
        self, component: Any, path: Path, *, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Write the component's state into the folder ``path``."""
        path.mkdir(parents=True)
        torch.save(component.state_dict(*args, **kwargs), path / self.filename)

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
        del tensor_load_kwargs  # none of them may weaken weights_only
        state = torch.load(path / self.filename, map_location=map_location, weights_only=True)
        _check_shapes(state, component.state_dict())
        component.load_state_dict(state, *args, **kwargs)


def save_checkpoint(
    path: str | Path, config: MPOConfig, counters: Mapping[str, int], **components: Any
) -> Path:
    """Write a checkpoint in one step: a reader finds the old file or the new one, never a part.

    Args:
        path (str or Path): the file.
        config (MPOConfig): settings that :func:`read_config` gives back.
        counters (mapping): e.g. ``env_steps`` and ``updates``.
        **components: objects with ``state_dict`` and ``load_state_dict``, by name.
    """
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"config": config.to_dict(), "counters": dict(counters)}
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        _checkpoint(components).save(unfinished, metadata=metadata)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def load_checkpoint(path: str | Path, **components: Any) -> dict[str, int]:
    """Bring components back to the state in the file.

    Args:
        path (str or Path): the file.
        **components: the objects to fill, under the names they were saved with.

    Returns:
        dict: the counters.

    Raises:
        CheckpointError: if the file is missing, damaged, no checkpoint, of other dimensions, or
            holds anything but tensors and plain values.
    """
    metadata = _metadata(path)
    try:
        _checkpoint(components).load(path, map_location="cpu")
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {str(path)!r} {_reason(error)}") from error
    except (zipfile.BadZipFile, OSError, EOFError, KeyError) as error:
        raise CheckpointError(f"checkpoint {str(path)!r} is damaged: {error}") from error
    return metadata["counters"]


def last_good(path: Path) -> str:
    """Where the last good state is, in one sentence, for the error that stops a run."""
    return f"The last good state is in {path}." if path.is_file() else "No state was saved."


def read_config(path: str | Path) -> MPOConfig:
    """The settings of the run that wrote the checkpoint.

    Raises:
        CheckpointError: if the file is missing, damaged or no checkpoint of this library.
    """
    try:
        return MPOConfig.from_mapping(_metadata(path)["config"])
    except ValueError as error:
        raise CheckpointError(
            f"checkpoint {str(path)!r} has settings of another version: {error}"
        ) from error


def _checkpoint(components: Mapping[str, Any]) -> Checkpoint:
    checkpoint = Checkpoint(format="archive")
    for name, component in components.items():
        checkpoint.register(name, component, adapter=WeightsOnlyAdapter())
    return checkpoint


def _metadata(path: str | Path) -> dict[str, Any]:
    file = Path(path).expanduser()
    if not file.exists():
        raise CheckpointError(f"checkpoint {str(path)!r} does not exist.")
    try:
        metadata = Checkpoint.manifest(file)["metadata"]
    except (
        CheckpointError,
        zipfile.BadZipFile,
        OSError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:
        raise CheckpointError(
            f"checkpoint {str(path)!r} is damaged or no checkpoint at all."
        ) from error
    if not {"config", "counters"} <= metadata.keys():
        raise CheckpointError(f"checkpoint {str(path)!r} is not one of mpo_torchrl.")
    return metadata


def _check_shapes(state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
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


def _reason(error: CheckpointError) -> str:
    """Why a component could not be loaded, in one sentence."""
    cause = error.__cause__
    if isinstance(cause, pickle.UnpicklingError):
        return "holds something other than tensors and plain values; it was not loaded."
    if isinstance(cause, DimensionError):
        return f"is of other dimensions or another network: {cause}."
    return f"cannot be loaded: {str(cause or error).splitlines()[0]}"
