"""The runs whose CSV files are kept beside this file."""

from __future__ import annotations

from pathlib import Path

from mpo_torchrl.trainer.curves import Run, read_run

FOLDER = Path(__file__).parent

AGENTS = {
    "tuned": "MPO, tuned",
    "sac": "SAC, Stable-Baselines3",
    "acme_gym": "MPO, acme_gym",
    "tonic": "MPO, tonic",
}
SUITES = {
    "pendulum": ("Pendulum-v1",),
    "mujoco": ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5"),
    "control": (
        "dm_control/cartpole-swingup",
        "dm_control/cheetah-run",
        "dm_control/walker-walk",
    ),
}
"""What benchmark.md compares: its agents by folder, and its tasks."""

PUBLISHED = {
    "HalfCheetah-v5": {"SAC": 5794.0},
    "Hopper-v5": {"SAC": 2014.0},
    "Walker2d-v5": {"SAC": 521.0},
    "dm_control/cartpole-swingup": {"MPO": 783.0, "DMPO": 552.0, "SAC": 829.0},
    "dm_control/cheetah-run": {"MPO": 188.0, "DMPO": 76.0, "SAC": 213.0},
    "dm_control/walker-walk": {"MPO": 278.0, "DMPO": 248.0, "SAC": 847.0},
}
"""Mean returns at 100,000 steps that others have published; benchmark.md says where."""


def seeds(folder: str) -> list[Run]:
    """The runs of a folder, one a seed, in order; none if there is no such folder."""
    runs = [read_run(path) for path in sorted((FOLDER / folder).glob("seed*.csv"))]
    return [run for run in runs if run is not None]


def benchmark_runs(task: str) -> dict[str, list[Run]]:
    """The runs of every agent that has some in the task, by the agent's name."""
    runs = {name: seeds(f"benchmark/{task}/{agent}") for agent, name in AGENTS.items()}
    return {name: members for name, members in runs.items() if members}
