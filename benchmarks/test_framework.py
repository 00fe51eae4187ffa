"""What a run spends on anything but its work: hooks, checks, progress bar, logging, checkpoints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import torch
from torchrl.collectors import Collector
from torchrl.data import ReplayBuffer

from mpo_torchrl import MPOConfig, MPOTrainer
from mpo_torchrl.trainer import report as report_module
from mpo_torchrl.trainer.resume import RunStates
from recipes import mpo

WORK = ("collect", "replay", "update")


class Clock:
    """Seconds spent inside of functions, by name, and from the first such moment to the last."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self.first = self.last = 0.0

    def time(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = perf_counter()
            self.first = self.first or start
            try:
                return function(*args, **kwargs)
            finally:
                self.last = perf_counter()
                self.seconds[name] += self.last - start
                self.calls[name] += 1

        return timed


@pytest.mark.parametrize(
    ("name", "module", "train"),
    [
        ("recipe", "recipes.mpo", mpo.train),
        (
            "MPOTrainer",
            "mpo_torchrl.trainer.trainer",
            lambda config: MPOTrainer.from_config(config).train(),
        ),
    ],
    ids=["recipe", "trainer"],
)
def test_framework(
    name: str,
    module: str,
    train: Callable[[MPOConfig], object],
    report: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    steps, random_steps = 500, 250
    config = MPOConfig(
        total_timesteps=steps + random_steps,
        learning_starts=random_steps,
        eval_every=250,
        eval_episodes=1,
        checkpoint_every=250,
        run_dir=str(tmp_path),
    )
    clock = Clock()
    timed(clock, module, monkeypatch)
    train(config)

    total = clock.last - clock.first
    rare = {task: clock.seconds[task] for task in ("evaluate", "row", "state")}
    framework = total - sum(clock.seconds[task] for task in WORK) - sum(rare.values())
    # What happens once in a while is counted as often as the default settings ask for it.
    defaults = MPOConfig()
    row = rare["row"] / clock.calls["row"] * config.total_timesteps / defaults.eval_every
    state = rare["state"] / clock.calls["state"] * config.total_timesteps
    state /= defaults.checkpoint_every
    lost = framework + row + state
    parts = {"loop": framework, "logging": row, "checkpoints": state}
    work = {task: clock.seconds[task] for task in WORK}
    milliseconds = {part: 1e3 * value / config.total_timesteps for part, value in parts.items()}
    report(
        f"{config.env}: {name}'s time beside collection, replay and updates / all its time",
        lost / (lost + sum(work.values())),
        at_most=0.15,
        detail=f"{1e3 * work['update'] / steps:.1f} ms an update; beside the work, ms a step: "
        + ", ".join(f"{part} {value:.3f}" for part, value in milliseconds.items()),
    )


def timed(clock: Clock, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a wiring's parts tell the clock how long they take."""

    def time(owner: Any, attribute: str, task: str) -> None:
        monkeypatch.setattr(owner, attribute, clock.time(task, getattr(owner, attribute)))

    namespace = import_module(module)
    time(Collector, "rollout", "collect")
    time(ReplayBuffer, "sample", "replay")
    time(ReplayBuffer, "extend", "replay")
    time(torch.Tensor, "backward", "update")
    time(namespace, "evaluate", "evaluate")
    time(report_module, "save_learner", "row")
    time(RunStates, "save", "state")
    for maker, methods in (
        ("make_loss", ("forward",)),
        ("make_optimizer", ("step", "zero_grad")),
        ("make_target_updater", ("step",)),
    ):
        make = getattr(namespace, maker)

        def make_timed(*args: Any, _make: Any = make, _methods: Any = methods) -> Any:
            made = _make(*args)
            part = made[-1] if isinstance(made, tuple) else made
            for method in _methods:
                object.__setattr__(part, method, clock.time("update", getattr(part, method)))
            return made

        monkeypatch.setattr(namespace, maker, make_timed)
