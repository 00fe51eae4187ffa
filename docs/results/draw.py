"""Draws every figure of the results from the CSV files beside it: make results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from runs import ABLATIONS, FOLDER, PUBLISHED, SUITES, ablation_runs, benchmark_runs, seeds

from mpo_torchrl.trainer.plot import draw_fronts, draw_learning_curves

# Picture: environment, its curves by name and folder, and the return to reach.
CURVES: dict[str, tuple[str, dict[str, str], float | None]] = {
    "pendulum": ("Pendulum-v1", {"MPO": "pendulum"}, -200.0),
    "pendulum_exact": (
        "Pendulum-v1",
        {"learned temperature": "pendulum_20000", "exact temperature": "pendulum_exact"},
        -200.0,
    ),
    "pendulum_rlox": ("Pendulum-v1", {"MPO": "pendulum_20000", "rlox 1.2.0": "rlox"}, None),
    "critics_pendulum": (
        "Pendulum-v1",
        {name: f"critics_pendulum/{name}" for name in ("c51", "two_hot", "quantile", "mixture")},
        -200.0,
    ),
    "swingup": (
        "dm_control/cartpole-swingup",
        {"scalar": "swingup/scalar", "c51": "swingup/c51"},
        None,
    ),
    "discrete_cartpole": (
        "CartPole-v1",
        {
            "epsilon 0.02": "discrete_cartpole/small_epsilon",
            "epsilon 0.1": "discrete_cartpole/n_step_1",
            "epsilon 0.1, five-step returns": "discrete_cartpole/n_step_5",
        },
        475.0,
    ),
    "halfcheetah": ("HalfCheetah-v5", {"MPO": "halfcheetah"}, None),
    "offline": (
        "Pendulum-v1, from data (updates for steps)",
        {"offline MPO": "offline/mpo", "behaviour cloning": "offline/cloning"},
        None,
    ),
    "sequences_retrace": ("Pendulum-v1", {"Retrace": "sequences/retrace"}, -200.0),
    "sequences_hidden": (
        "Pendulum-v1 without its velocity",
        {"GRU": "sequences/gru", "memoryless": "sequences/memoryless"},
        None,
    ),
    "vmpo_cartpole": ("CartPole-v1", {"V-MPO": "vmpo_cartpole"}, 475.0),
    "vmpo_pendulum": ("Pendulum-v1", {"V-MPO": "vmpo_pendulum"}, -250.0),
}


def draw_curves(name: str, env: str, folders: Mapping[str, str], goal: float | None) -> None:
    """Writes ``<name>.png``: the mean over seeds of each folder, with its confidence band."""
    groups = {label: seeds(folder) for label, folder in folders.items()}
    levels = {} if goal is None else {env: {"goal": goal}}
    draw_learning_curves(FOLDER / f"{name}.png", {env: groups}, levels)


def draw_benchmark(suite: str) -> None:
    """Writes ``benchmark_<suite>.png``: a picture for each task of which there are runs.

    Broken lines are what others have published for it.
    """
    runs = {task: benchmark_runs(task) for task in SUITES[suite]}
    there = {task: agents for task, agents in runs.items() if agents}
    levels = {
        task: {f"{name}, published, 100,000 steps": value for name, value in found.items()}
        for task, found in PUBLISHED.items()
    }
    if there:
        draw_learning_curves(FOLDER / f"benchmark_{suite}.png", there, levels)


def draw_ablations() -> None:
    """Writes ``ablations.png``: a picture for each task, a line for each change of the settings."""
    runs = {task: ablation_runs(task) for task in ABLATIONS}
    draw_learning_curves(FOLDER / "ablations.png", runs)


def draw_front(name: str, env: str) -> None:
    """Writes ``<name>.png`` from every ``<name>/<bounds>/seed*.csv``: bounds as ``0.1_0.01``."""
    folders = sorted((FOLDER / name).iterdir(), key=ratio_of_bounds)
    groups = {
        f"epsilons=[{folder.name.replace('_', ', ')}]": seeds(f"{name}/{folder.name}")
        for folder in folders
    }
    draw_fronts(FOLDER / f"{name}.png", {env: groups})


def ratio_of_bounds(folder: Path) -> float:
    """How much the second reward counts beside the first."""
    first, second = map(float, folder.name.split("_"))
    return second / first


if __name__ == "__main__":
    for name, curves in CURVES.items():
        draw_curves(name, *curves)
    for suite in SUITES:
        draw_benchmark(suite)
    draw_ablations()
    draw_front("multi_objective", "mo-mountaincarcontinuous-v0")
