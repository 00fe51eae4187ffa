"""Runs of the recipe in processes of their own, some of which do not live to the end."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
from pathlib import Path

import torch

from mpo_torchrl.trainer import MPOConfig
from recipes import mpo

# Forked from a server that has imported everything: a start takes a moment, not seconds.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.trainer.killed"])


def start(config: MPOConfig, die_in: str = "", nth: int = 1, after: bool = False):
    """A process that trains; it kills itself in the nth call of ``module.function``, if given."""
    process = context.Process(target=_train, args=(config.to_dict(), die_in, nth, after))
    process.start()
    return process


def run(config: MPOConfig, *args, **kwargs) -> int:
    """Train in a process to its end; its exit code."""
    process = start(config, *args, **kwargs)
    process.join()
    return process.exitcode


def outcome(run_dir: Path) -> dict:
    """What a run ended with, apart from the time it took."""
    metrics = json.loads((run_dir / "metrics.json").read_text())
    rows = list(csv.DictReader((run_dir / "progress.csv").open()))
    for row in (metrics, *rows):
        row.pop("wall_seconds")
    return {"metrics": metrics, "rows": rows}


def _train(settings: dict, die_in: str, nth: int, after: bool) -> None:
    torch.set_num_threads(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    if die_in:
        _die(die_in, nth, after)
    mpo.train(MPOConfig(**settings))


def _die(name: str, nth: int, after: bool) -> None:
    """Replace a function by one whose nth call is the end: before its work, or right after it."""
    module = {"torch": torch, "os": os}[name.split(".")[0]]
    function = getattr(module, name.split(".")[1])
    calls = 0

    def deadly(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == nth and not after:
            if name == "torch.save":  # half a file
                Path(args[1]).write_bytes(b"PK" + bytes(100))
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(module, name.split(".")[1], deadly)
