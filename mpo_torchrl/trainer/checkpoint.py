"""Checkpoints: of a learner in one small file, of a whole run in one that continues it.

Both are TorchRL checkpoints (:class:`torchrl.checkpoint.Checkpoint`). TorchRL's own readers of
state dicts and replay buffers unpickle what the file asks them to; those used here read tensors and
plain values only, so that loading never runs code from a file.
"""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torchrl.checkpoint import Checkpoint, CheckpointError, CheckpointFormat
from torchrl.collectors import Collector
from torchrl.data import ReplayBuffer

from mpo_torchrl.trainer.adapter import DamagedError, DimensionError, WeightsOnlyAdapter
from mpo_torchrl.trainer.collector_state import CollectorAdapter
from mpo_torchrl.trainer.config import MPOConfig, RunConfig
from mpo_torchrl.trainer.progress import Progress
from mpo_torchrl.trainer.replay_rows import ReplayRowsAdapter
from mpo_torchrl.trainer.settings import SettingError, check_device

CHECKPOINT, BEST = "checkpoint.zip", "best.zip"
"""The learner as of the last evaluation, and of the best one."""


def save_checkpoint(
    path: str | Path, config: RunConfig, counters: Mapping[str, int], **components: Any
) -> Path:
    """Write a checkpoint in one step: a reader finds the old file or the new one, never a part.

    Args:
        path (str or Path): the file.
        config (RunConfig): settings that :func:`read_config` gives back.
        counters (mapping): e.g. ``env_steps`` and ``updates``.
        **components: a collector, a replay buffer, or any object with ``state_dict`` and
            ``load_state_dict``, by name.

    Returns:
        Path: the file.

    Raises:
        CheckpointError: if it cannot be written; what was there before is untouched.

    Examples:
        >>> import tempfile
        >>> import torch
        >>> from mpo_torchrl.trainer import load_checkpoint, read_config, save_checkpoint
        >>> network, path = torch.nn.Linear(2, 1), Path(tempfile.mkdtemp(), "network.zip")
        >>> _ = save_checkpoint(path, MPOConfig(seed=7), {"env_steps": 10}, network=network)

        >>> path.is_file()
        True
    """
    path = Path(path).expanduser()
    unfinished = path.with_name(f".{path.name}.unfinished")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            make_checkpoint(components, "archive").save(
                unfinished, metadata=metadata(config, counters)
            )
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

    Examples:
        >>> import tempfile
        >>> import torch
        >>> from mpo_torchrl.trainer import load_checkpoint, read_config, save_checkpoint
        >>> network, path = torch.nn.Linear(2, 1), Path(tempfile.mkdtemp(), "network.zip")
        >>> _ = save_checkpoint(path, MPOConfig(seed=7), {"env_steps": 10}, network=network)

        >>> other = torch.nn.Linear(2, 1)
        >>> load_checkpoint(path, network=other)
        {'env_steps': 10}
        >>> bool((other.weight == network.weight).all())
        True
    """
    counters = read_metadata(path)["counters"]
    try:
        make_checkpoint(components).load(path, map_location="cpu")
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {str(path)!r} {_reason(error)}") from error
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError) as error:
        raise CheckpointError(f"checkpoint {str(path)!r} is damaged: {error}") from error
    return counters


def holds(path: str | Path, name: str) -> bool:
    """Whether a checkpoint has a component of that name."""
    return name in Checkpoint.manifest(path)["components"]


def save_learner(
    run_dir: str | Path,
    config: RunConfig,
    progress: Progress,
    learner: Mapping[str, Any],
    best: bool = False,
) -> None:
    """Write ``checkpoint.zip`` into the run's folder; ``best.zip``, too, if it is the best so far.

    Both are small files to share and to evaluate; what continues the run is elsewhere
    (:class:`~mpo_torchrl.trainer.RunStates`).

    Args:
        run_dir (str or Path): the folder.
        config (RunConfig): the run's settings.
        progress (Progress): the run's counters.
        learner (mapping): the components by name, each with ``state_dict`` and
            ``load_state_dict``: ``loss``, ``optimizer``, and what else the policy needs.
        best (bool): whether it is the best so far.

    Raises:
        CheckpointError: if a file cannot be written; what was there before is untouched.

    Examples:
        >>> import tempfile
        >>> import torch
        >>> folder, learner = Path(tempfile.mkdtemp()), {"loss": torch.nn.Linear(2, 1)}
        >>> save_learner(folder, MPOConfig(), Progress(), learner, best=True)
        >>> sorted(path.name for path in folder.iterdir())
        ['best.zip', 'checkpoint.zip']
    """
    for name in (CHECKPOINT, *([BEST] if best else [])):
        save_checkpoint(Path(run_dir) / name, config, progress.counters, **learner)


def last_good(run_dir: str | Path) -> str:
    """Where the last good state is, in one sentence, for the error that stops a run.

    Args:
        run_dir (str or Path): the run's folder.

    Returns:
        str: the sentence.

    Examples:
        >>> import tempfile
        >>> last_good(tempfile.mkdtemp())
        'No state was saved.'
    """
    path = Path(run_dir) / CHECKPOINT
    return f"The last good state is in {path}." if path.is_file() else "No state was saved."


def read_config(path: str | Path, config_class: Any = MPOConfig) -> Any:
    """The settings of the run that wrote the checkpoint, of the class that it was run with.

    Where its device is not available, it is the CPU, with a warning: an agent may be used on
    another machine than it was trained on.

    Args:
        path (str or Path): the file.
        config_class (type): the settings of the recipe that wrote it.

    Returns:
        MPOConfig: or what ``config_class`` is.

    Raises:
        CheckpointError: if the file is missing, damaged or no checkpoint of this library.

    Examples:
        >>> import tempfile
        >>> import torch
        >>> from mpo_torchrl.trainer import load_checkpoint, read_config, save_checkpoint
        >>> network, path = torch.nn.Linear(2, 1), Path(tempfile.mkdtemp(), "network.zip")
        >>> _ = save_checkpoint(path, MPOConfig(seed=7), {"env_steps": 10}, network=network)

        >>> read_config(path).seed
        7
    """
    settings = dict(read_metadata(path)["config"])
    try:
        check_device(settings.get("device", "cpu"))
    except SettingError as error:
        warnings.warn(f"checkpoint {str(path)!r} is loaded on the CPU: {error}", stacklevel=2)
        settings["device"] = "cpu"
    try:
        return config_class.from_mapping(settings)
    except ValueError as error:
        raise CheckpointError(
            f"checkpoint {str(path)!r} has settings of another version or recipe: {error}"
        ) from error


def make_checkpoint(
    components: Mapping[str, Any],
    format: CheckpointFormat = "directory",
    replay_rows: ReplayRowsAdapter | None = None,
) -> Checkpoint:
    """TorchRL's checkpoint of the components, each with the adapter that suits it."""
    checkpoint = Checkpoint(format=format)
    checkpoint.register_adapter(object, WeightsOnlyAdapter())  # asked last
    checkpoint.register_adapter(Collector, CollectorAdapter())
    checkpoint.register_adapter(ReplayBuffer, replay_rows or ReplayRowsAdapter())
    for name, component in components.items():
        checkpoint.register(name, component)
    return checkpoint


def metadata(config: RunConfig, counters: Mapping[str, int]) -> dict[str, Any]:
    """What a checkpoint's manifest says of the run."""
    return {"config": config.to_dict(), "counters": dict(counters)}


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What :func:`metadata` gave to the file.

    Raises:
        CheckpointError: if the file is missing, damaged or no checkpoint of this library.
    """
    file = Path(path).expanduser()
    if not file.exists():
        raise CheckpointError(f"checkpoint {str(path)!r} does not exist.")
    try:
        found = Checkpoint.manifest(file)["metadata"]
    except (
        CheckpointError,
        zipfile.BadZipFile,
        NotImplementedError,  # of zip files: a version or a compression that is none
        OSError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:
        raise CheckpointError(
            f"checkpoint {str(path)!r} is damaged or no checkpoint at all."
        ) from error
    if not {"config", "counters"} <= found.keys():
        raise CheckpointError(f"checkpoint {str(path)!r} is not one of mpo_torchrl.")
    return found


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """One sentence for a full disk or a folder that may not be written to."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch says RuntimeError when a disk is full
        if isinstance(error, CheckpointError):
            raise
        reason = getattr(error, "strerror", None) or _first_line(error)
        raise CheckpointError(f"checkpoint {str(path)!r} cannot be written: {reason}.") from error


def _reason(error: CheckpointError) -> str:
    """Why a component could not be loaded, in one sentence."""
    cause = error.__cause__
    if isinstance(cause, pickle.UnpicklingError):
        return "holds something other than tensors and plain values; it was not loaded."
    if isinstance(cause, DimensionError):
        return f"is of other dimensions or another network: {cause}."
    if isinstance(cause, (DamagedError, FileNotFoundError, zipfile.BadZipFile)):
        return f"is damaged: {_first_line(cause)}."
    return f"cannot be loaded: {_first_line(cause or error)}."


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
