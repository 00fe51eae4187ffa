"""The learning curve as a picture. Needs matplotlib, from the ``recipes`` extra."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from mpo_torchrl.trainer.table_logger import TableLogger


def draw_learning_curve(path: Path, table: TableLogger, title: str) -> None:
    """Draw the evaluations, mean and stddev over episodes, against environment steps."""
    rows = [row for row in table.rows if "eval_return_mean" in row]
    steps = [row["env_steps"] for row in rows]
    mean = [row["eval_return_mean"] for row in rows]
    low = [row["eval_return_mean"] - row["eval_return_stddev"] for row in rows]
    high = [row["eval_return_mean"] + row["eval_return_stddev"] for row in rows]
    figure = Figure(figsize=(6, 4), layout="constrained")  # not pyplot: needs no display
    axes = figure.subplots()
    axes.plot(steps, mean, marker=".")
    axes.fill_between(steps, low, high, alpha=0.2)
    axes.set(title=title, xlabel="env_steps", ylabel="eval_return_mean")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
