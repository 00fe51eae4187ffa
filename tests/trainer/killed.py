"""Runs of the recipe in processes of their own, some of which do not live to the end."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import resource
import signal
from pathlib import Path

import torch

from mpo_torchrl.trainer import MPOConfig, replay_rows
from recipes import mpo

# Forked from a server that has imported everything: a start takes a moment, not seconds.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.trainer.killed"])


def start(config: MPOConfig, **fate):
    """A process that trains; ``fate`` as for :func:`_train`."""
    process = context.Process(target=_train, args=(config.to_dict(),), kwargs=fate)
    process.start()
    return process


def run(config: MPOConfig, **fate) -> int:
    """Train in a process to its end; its exit code."""
    process = start(config, **fate)
    process.join()
    return process.exitcode


def last_words(config: MPOConfig) -> str:
    """What the last process that trained in the run's folder printed; read it if it failed."""
    return _said(config.run_dir).read_text()


def outcome(run_dir: Path) -> dict:
    """What a run ended with, apart from the time it took."""
    metrics = json.loads((run_dir / "metrics.json").read_text())
    rows = list(csv.DictReader((run_dir / "progress.csv").open()))
    for row in (metrics, *rows):
        row.pop("wall_seconds")
    return {"metrics": metrics, "rows": rows}


def _train(
    settings: dict, die_in: str = "", nth: int = 1, after: bool = False, largest_file: int = 0
) -> None:
    """Train, unless the process kills itself in the nth call of a function, or the disk is full.

    ``largest_file`` bytes are what it may write into one file: beyond, the system refuses.
    """
    torch.set_num_threads(1)
    said = os.open(_said(settings["run_dir"]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    replay_rows.STEPS_PER_FILE = 30  # full files that are linked, in short runs, too
    if die_in:
        _die(die_in, nth, after)
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    mpo.train(MPOConfig(**settings))


def _said(run_dir: str) -> Path:
    """Beside the folder, not in it: a run's folder is what the tests look at."""
    return Path(f"{run_dir}.output")


def _die(name: str, nth: int, after: bool) -> None:
    """Replace a function by one whose nth call is the end: amid its work, or right after it."""
    module, function_name = {"torch": torch, "os": os}[name.split(".")[0]], name.split(".")[1]
    function = getattr(module, function_name)
    calls = 0

    def deadly(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == nth and not after:
            if name == "torch.save":
                buffer = io.BytesIO()
                function(args[0], buffer)
                Path(args[1]).write_bytes(buffer.getvalue()[: buffer.tell() // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(module, function_name, deadly)
