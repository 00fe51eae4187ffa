"""Draws the four parts and the data between them: python docs/figures/four_parts.py."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

PARTS = [
    ("1  critic", "how good is\nan action?", "loss_qvalue"),
    ("2  E-step", "which of N actions\ndeserve more mass?", "actions, weights"),
    ("3  dual", "how greedy,\nhow far?", "loss_temperature,\nloss_alpha"),
    ("4  M-step", "which policy fits\nthe weights?", "loss_actor"),
]
WIDTH, GAP = 1.75, 0.6
INK, FILL, LINE = "#1f2933", "#e8eef7", "#3b5b92"


def draw_box(axes: Axes, left: float, name: str, question: str, writes: str) -> None:
    """One part: its name and question in a box, what it writes below."""
    box = plt.Rectangle((left, 0), WIDTH, 1.0, facecolor=FILL, edgecolor=LINE, linewidth=1.2)
    axes.add_patch(box)
    middle = left + WIDTH / 2
    axes.text(middle, 0.76, name, ha="center", va="center", weight="bold", size=11, color=INK)
    axes.text(middle, 0.34, question, ha="center", va="center", size=8, color=INK)
    draw_arrow(axes, (middle, 0), (middle, -0.4))
    axes.text(middle, -0.47, writes, ha="center", va="top", size=8, family="monospace", color=INK)


def draw_arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """An arrow in the colour of the lines."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": LINE})


def main() -> None:
    """Writes ``four_parts.svg`` beside this file."""
    matplotlib.rcParams["svg.hashsalt"] = "four_parts"  # the same file each time
    figure, axes = plt.subplots(figsize=(9.4, 2.3), layout="constrained")
    for i, part in enumerate(PARTS):
        left = i * (WIDTH + GAP)
        draw_box(axes, left, *part)
        if i:
            draw_arrow(axes, (left - GAP, 0.5), (left, 0.5))
    draw_arrow(axes, (-GAP, 0.5), (0, 0.5))
    axes.text(-GAP - 0.05, 0.5, "replay\nbatch", ha="right", va="center", size=9, color=INK)
    right = len(PARTS) * (WIDTH + GAP) - GAP
    draw_arrow(axes, (right, 0.5), (right + GAP, 0.5))
    last = "sum of losses,\noptimizer,\ntarget updater"
    axes.text(right + GAP + 0.05, 0.5, last, ha="left", va="center", size=9, color=INK)
    passed = ["Q(s, a)", "w", "η, α"]
    for i, what in enumerate(passed):
        at = (i + 1) * (WIDTH + GAP) - GAP / 2
        axes.text(at, 0.6, what, ha="center", va="bottom", size=8.5, style="italic", color=INK)
    axes.set(xlim=(-1.2, right + 1.9), ylim=(-0.8, 1.05))
    axes.axis("off")
    path = Path(__file__).with_suffix(".svg")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
