"""Draws the learning curves of a folder's CSV files, one a seed: python docs/results/draw.py."""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FOLDER = Path(__file__).parent


def read(path: Path) -> tuple[list[int], list[float]]:
    """Environment steps and mean returns of the evaluations."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return [int(row["env_steps"]) for row in rows], [float(row["eval_return_mean"]) for row in rows]


def draw(name: str, title: str, goal: float) -> None:
    """Writes ``<name>.png`` from every ``<name>/seed*.csv``."""
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for path in sorted((FOLDER / name).glob("seed*.csv")):
        steps, returns = read(path)
        axes.plot(
            steps, returns, marker="o", markersize=3, label=path.stem.replace("seed", "seed ")
        )
    axes.axhline(goal, color="gray", linewidth=0.8, linestyle="--", label=f"{goal:g}")
    axes.set(title=title, xlabel="environment steps", ylabel="return of the mean action")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(FOLDER / f"{name}.png", dpi=150)


def draw_offline(names: dict[str, str], behaviour: float) -> None:
    """Writes ``offline.png``: a colour for each folder, a line for each seed in it."""
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for index, (name, label) in enumerate(names.items()):
        for path in sorted((FOLDER / "offline" / name).glob("seed*.csv")):
            updates, returns = read(path)
            label_once = label if path.stem == "seed0" else None
            axes.plot(updates, returns, color=f"C{index}", marker="o", ms=3, label=label_once)
    axes.axhline(behaviour, color="gray", lw=0.8, ls="--", label="behaviour policy: the data set")
    axes.set(title="Offline on Pendulum-v1", xlabel="updates", ylabel="return of the mean action")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(FOLDER / "offline.png", dpi=150)


if __name__ == "__main__":
    draw("pendulum", "MPO on Pendulum-v1, 10 episodes an evaluation", goal=-200.0)
    draw("vmpo_cartpole", "V-MPO on CartPole-v1, 20 episodes an evaluation", goal=475.0)
    draw("vmpo_pendulum", "V-MPO on Pendulum-v1, 20 episodes an evaluation", goal=-250.0)
