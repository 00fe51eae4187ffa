"""A run that survives being killed: its whole state on disk, found again by the same command."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torchrl import torchrl_logger
from torchrl.checkpoint import Checkpoint, CheckpointError, CheckpointRotation, GlobalRNGState

from mpo_torchrl.trainer.checkpoint import (
    load_checkpoint,
    make_checkpoint,
    metadata,
    read_config,
    writing,
)
from mpo_torchrl.trainer.config import RunConfig
from mpo_torchrl.trainer.progress import Progress
from mpo_torchrl.trainer.replay_rows import ReplayRowsAdapter
from mpo_torchrl.trainer.settings import SettingError

FOLDER = "resume"
"""Where in the folder of a run its states are."""

MAY_CHANGE = frozenset(
    {
        "total_timesteps",
        "run_dir",
        "num_threads",
        "logger",
        "progress_bar",
        "eval_every",
        "eval_episodes",
        "checkpoint_every",
        "keep_checkpoints",
        "resume",
    }
)
"""Settings that may be others when a run goes on; every other one would make it another run."""

_LEFTOVERS = (".*.stage-*", ".*.archive-*", ".*.backup-*", ".*.delete-*", "*.unfinished")


class RunStates:
    """The states of a run on disk, from which it continues bit for bit as if never interrupted.

    A state is a folder ``resume/checkpoint-<env_steps>`` that appears whole or not at all. The
    newest ``keep_checkpoints`` of them stay.

    Args:
        run_dir (Path): the run's folder.
        config (RunConfig): the run's settings; ``resume`` says what to do with states found.
        progress (Progress): the run's counters.
        **components: everything that changes as the run goes on: a collector, a replay buffer and
            objects with ``state_dict`` and ``load_state_dict``, by name. Random states are added.

    Examples:
        >>> import tempfile
        >>> import torch
        >>> from mpo_torchrl.trainer import MPOConfig, Progress
        >>> folder, network = Path(tempfile.mkdtemp()), torch.nn.Linear(2, 1)
        >>> progress = Progress()
        >>> states = RunStates(folder, MPOConfig(), progress, network=network)
        >>> states.restore() is None  # nothing there yet: the run starts afresh
        True
        >>> progress.env_steps = 100
        >>> states.save()
        >>> RunStates(folder, MPOConfig(), Progress(), network=network).restore().name
        'checkpoint-000000000100'
    """

    def __init__(
        self, run_dir: Path, config: RunConfig, progress: Progress, **components: Any
    ) -> None:
        self.run_dir = run_dir
        self.config = config
        self.progress = progress
        self.components = {**components, "progress": progress, "random_state": GlobalRNGState()}
        self.newest: Path | None = None
        self.rotation = CheckpointRotation(run_dir / FOLDER, keep_last=config.keep_checkpoints)

    def restore(self) -> Path | None:
        """Bring every component to the newest good state, if there is one and it is wanted.

        A state that cannot be loaded is named in a warning and set aside.

        Returns:
            Path or None: the state; None if the run starts afresh.

        Raises:
            SettingError: if the state is of a run with other settings, or missing with
                ``resume=must``, or if another process is at work in the folder.
            CheckpointError: if there are states and none can be loaded.
        """
        self._lock()
        remove_leftovers(self.run_dir)
        if self.config.resume == "never":
            shutil.rmtree(self.rotation.directory, ignore_errors=True)
        found = sorted(self.rotation.directory.glob("checkpoint-*"), reverse=True)
        if not found:
            if self.config.resume == "must":
                raise SettingError(
                    "resume=must needs a run_dir with a run to continue, got "
                    f"{str(self.run_dir)!r}."
                )
            return None
        reasons: list[str] = []
        for path in found:
            try:
                self._load(path)
            except CheckpointError as error:
                reasons.append(str(error))
                continue
            for bad, reason in zip(found, reasons, strict=False):
                torchrl_logger.warning("%s The run continues from %s.", reason, path.name)
                _set_aside(bad)
            return path
        raise CheckpointError(
            f"none of the {len(found)} states in {str(self.rotation.directory)!r} can be loaded. "
            f"The newest: {reasons[0]} Take another run_dir; resume=never removes them and starts "
            "afresh."
        )

    def save(self) -> None:
        """Write the state of every component, then drop the oldest states.

        Raises:
            CheckpointError: if it cannot be written; the states from before are untouched.
        """
        if self.newest is not None and self.newest.name.endswith(
            f"-{self.progress.env_steps:012d}"
        ):
            return  # that very state is there
        rows = ReplayRowsAdapter(previous=self._replay_rows())
        checkpoint = make_checkpoint(self.components, replay_rows=rows)
        try:
            with writing(self.rotation.directory):
                self.newest = self.rotation.save(
                    checkpoint,
                    step=self.progress.env_steps,
                    metadata=metadata(self.config, self.progress.counters),
                )
        except CheckpointError as error:
            there = "No state was saved before."
            if self.newest is not None:
                there = f"The same command continues from {self.newest.name}, once that is mended."
            raise CheckpointError(f"{error} {there}") from error

    def _lock(self) -> None:
        """Keep other processes out for as long as this one lives, however it ends."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        # One lock a process: who makes a second trainer in a notebook is not locked out.
        self._lock_file = FileLock(self.run_dir / ".lock", is_singleton=True)
        try:
            self._lock_file.acquire(timeout=0)
        except Timeout:
            raise SettingError(
                f"run_dir {str(self.run_dir)!r} is in use by another process: wait for it to end, "
                "or take another run_dir."
            ) from None

    def _load(self, path: Path) -> None:
        check_settings(self.config, read_config(path, type(self.config)), self.run_dir)
        others = {name: c for name, c in self.components.items() if name != "random_state"}
        load_checkpoint(path, **others)
        # Last: bringing back the rest may draw random numbers.
        load_checkpoint(path, random_state=self.components["random_state"])
        self.newest = path

    def _replay_rows(self) -> Path | None:
        """Where the newest state keeps the replay buffer."""
        if self.newest is None:
            return None
        record = Checkpoint.manifest(self.newest)["components"].get("replay_buffer")
        return self.newest / record["path"] if record else None


def check_settings(config: RunConfig, saved: RunConfig, run_dir: Path) -> None:
    """Raise a :class:`SettingError` if ``config`` would make another run of the ``saved`` one."""
    here, there = config.to_dict(), saved.to_dict()
    others = [name for name in here if here[name] != there[name] and name not in MAY_CHANGE]
    if others:
        differences = ", ".join(f"{name}={there[name]} not {here[name]}" for name in others)
        raise SettingError(
            f"run_dir {str(run_dir)!r} holds a run with other settings ({differences}): take "
            "those, another run_dir, or resume=never, which removes it and starts afresh."
        )


def remove_leftovers(run_dir: Path) -> None:
    """Remove what a killed process left half-written; no reader ever looks at it."""
    for folder in (run_dir, run_dir / FOLDER):
        for pattern in _LEFTOVERS:
            for path in folder.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _set_aside(path: Path) -> None:
    """Out of the rotation's sight, but not lost."""
    aside = path.with_name(f"damaged-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
