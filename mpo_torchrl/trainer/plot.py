"""Learning curves as pictures. Needs matplotlib, from the ``recipes`` extra."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mpo_torchrl.trainer.curves import (
    Curve,
    Numbers,
    Run,
    confidence_band,
    last_returns,
    measured,
    on_front,
    range_band,
)
from mpo_torchrl.trainer.table_logger import TableLogger

MULTIPLIERS = ("temperature", "penalty_temperature", "alpha_mean", "alpha_stddev", "alpha_policy")

KL_BOUNDS = {
    "kl_e_step": "epsilon",
    "kl_mean": "epsilon_mean",
    "kl_stddev": "epsilon_stddev",
    "kl_policy": "epsilon_policy",
}
"""A reading of the loss, and the setting that bounds it."""


def draw_learning_curve(path: Path, table: TableLogger, title: str) -> None:
    """Draw the evaluations of one run, mean and stddev over episodes, against environment steps."""
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


def draw_learning_curves(
    path: Path,
    runs: Mapping[str, Mapping[str, Sequence[Run]]],
    levels: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Draw evaluations against environment steps: axes an environment, a colour a group.

    Thin lines are runs, the thick one is their mean, the band its 95% confidence band over seeds.
    A group has its colour in all axes.

    Args:
        path (Path): the picture.
        runs (mapping): environment to group to runs, from
            :func:`~mpo_torchrl.trainer.curves.group_runs`.
        levels (mapping, optional): environment to name to a return to compare with, a broken line.
    """
    colors = _colors(runs)
    levels = {} if levels is None else levels
    lines = max(
        len(levels.get(env, ())) + sum(_named(*group).count("\n") + 1 for group in groups.items())
        for env, groups in runs.items()
    )
    figure = Figure(figsize=(6.4 * len(runs), 4.4 + 0.25 * lines), layout="constrained")
    every_axes = figure.subplots(1, len(runs), squeeze=False)[0]
    for axes, (env, groups) in zip(every_axes, runs.items(), strict=True):
        for label, members in groups.items():
            curve = confidence_band(members, "eval_return_mean")
            color = colors[label]
            if len(members) > 1:
                axes.fill_between(curve.steps, curve.low, curve.high, color=color, alpha=0.15, lw=0)
                for run in members:
                    steps, returns = measured(run, "eval_return_mean")
                    axes.plot(steps, returns, _marker(steps), color=color, alpha=0.4, lw=0.7)
            named = _named(label, members)
            axes.plot(curve.steps, curve.mean, _marker(curve.steps), color=color, label=named)
        styles = itertools.cycle(("--", ":", "-."))
        for (name, value), style in zip(levels.get(env, {}).items(), styles, strict=False):
            axes.axhline(value, color="black", lw=0.8, ls=style, label=f"{name}: {value:g}")
        _fit_to_lines(axes)
        xlabel = _counted(itertools.chain(*groups.values()))
        axes.set(title=env, xlabel=xlabel, ylabel="return of the mean action")
        axes.grid(alpha=0.3)
        # Below: there it hides no curve.
        axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.13))
    figure.supxlabel(
        "thick: mean over seeds; band: its 95% confidence band (Student's t); thin: each run",
        fontsize="small",
    )
    figure.savefig(path, dpi=150)


def draw_duals(path: Path, runs: Mapping[str, Mapping[str, Sequence[Run]]]) -> None:
    """Draw a row a group: the dual variables, the KLs against their bounds, the effective samples.

    Lines are means over seeds, bands reach from the least to the greatest seed.

    Args:
        path (Path): the picture.
        runs (mapping): environment to group to runs, from
            :func:`~mpo_torchrl.trainer.curves.group_runs`.
    """
    rows = [
        (env, label, members) for env, groups in runs.items() for label, members in groups.items()
    ]
    figure = Figure(figsize=(14, 3.6 * len(rows)), layout="constrained")
    for row_axes, (env, label, members) in zip(
        figure.subplots(len(rows), 3, squeeze=False), rows, strict=True
    ):
        settings = members[0].settings
        row_axes[0].set_title(_named(f"{env}, {label}", members), fontsize="medium")
        _draw_multipliers(row_axes[0], members)
        _draw_kls(row_axes[1], members, settings)
        _draw_effective_sample_size(row_axes[2], members, settings)
        for axes in row_axes:
            axes.set_xlabel(_counted(members))
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small")
    figure.supxlabel(
        "as reported by the update before each evaluation; line: mean over seeds, "
        "band: least to greatest seed",
        fontsize="small",
    )
    figure.savefig(path, dpi=150)


def draw_fronts(path: Path, runs: Mapping[str, Mapping[str, Sequence[Run]]]) -> None:
    """Draw what each preference reached: axes two of several rewards, a colour a group.

    Small points are the last evaluations of runs, large ones their means over seeds; the line
    joins the means that no other one beats in every reward.

    Args:
        path (Path): the picture.
        runs (mapping): environment to group to runs, from
            :func:`~mpo_torchrl.trainer.curves.group_runs`, each with several rewards.
    """
    colors = _colors(runs)
    panels = []
    for env, groups in runs.items():
        names = next(iter(groups.values()))[0].objectives
        panels += [(env, groups, names, p) for p in itertools.combinations(range(len(names)), 2)]
    figure = Figure(figsize=(6.4 * len(panels), 4.8), layout="constrained")
    every_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (env, groups, names, pair) in zip(every_axes, panels, strict=True):
        points = [last_returns(members) for members in groups.values()]
        means = np.stack([members.mean(0) for members in points])  # [G, K]
        front = means[on_front(means)][:, pair]
        axes.plot(*front[front[:, 0].argsort()].T, color="gray", lw=0.8, ls="--", zorder=0)
        for index, (label, members) in enumerate(groups.items()):
            color = colors[label]
            axes.scatter(*points[index][:, pair].T, color=color, s=12, alpha=0.6)
            axes.scatter(*means[index, pair], color=color, s=60, label=_named(label, members))
        x, y = (f"return: {names[objective]}" for objective in pair)
        axes.set(title=env, xlabel=x, ylabel=y)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.supxlabel(
        "last evaluation; large: mean over seeds; line: means that none beats in all rewards",
        fontsize="small",
    )
    figure.savefig(path, dpi=150)


def _draw_multipliers(axes: Axes, runs: Sequence[Run]) -> None:
    several = [name for name in runs[0].table if name.startswith("temperature_")]
    for name in (*MULTIPLIERS, *several):
        _draw_band(axes, range_band(runs, name), name)
    axes.set(ylabel="dual variable", yscale="log")


def _draw_kls(axes: Axes, runs: Sequence[Run], settings: Mapping[str, Any]) -> None:
    bounds = _bounds(runs[0].table, settings)
    bounded = all(value is not None for _, value in bounds.values())
    for name, (bound, value) in bounds.items():
        unit = value if bounded and value is not None else 1.0
        curve = range_band(runs, name)
        curve = Curve(curve.steps, curve.mean / unit, curve.low / unit, curve.high / unit)
        _draw_band(axes, curve, f"{name} / {bound}" if bounded else name)
    if bounded:
        axes.axhline(1.0, color="black", lw=0.8, ls="--", label="bound")
    axes.set(ylabel="KL / its bound" if bounded else "KL, nats (bounds unknown)")
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])  # room for the legend


def _bounds(
    columns: Iterable[str], settings: Mapping[str, Any]
) -> dict[str, tuple[str, float | None]]:
    """Each KL of a table: what its bound is called, and the bound if it is known."""
    columns = list(columns)
    several = [name for name in columns if name.startswith("kl_e_step_")]
    # A run that has learned nothing yet has settings and no column of any of them.
    epsilons = settings.get("epsilons") if several else None
    epsilons = epsilons or [None] * len(several)
    return {
        **{name: (b, settings.get(b)) for name, b in KL_BOUNDS.items() if name in columns},
        **{
            name: (f"epsilons[{index}]", epsilon)
            for index, (name, epsilon) in enumerate(zip(several, epsilons, strict=True))
        },
    }


def _draw_effective_sample_size(
    axes: Axes, runs: Sequence[Run], settings: Mapping[str, Any]
) -> None:
    _draw_band(axes, range_band(runs, "effective_sample_size"), "effective_sample_size")
    # Weights are over the sampled actions of a state, or on a data set over the actions of a batch.
    most = "batch_size" if "dataset" in settings else "n_action_samples"
    if most in settings and settings.get("policy") != "categorical":  # which samples none
        number = settings[most]
        axes.axhline(number, color="black", lw=0.8, ls="--", label=f"{most} = {number}")
    axes.set(ylabel="actions that carry the weight")
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])


def _draw_band(axes: Axes, curve: Curve, label: str) -> None:
    if curve.steps.size:
        (line,) = axes.plot(curve.steps, curve.mean, _marker(curve.steps), label=label)
        axes.fill_between(
            curve.steps, curve.low, curve.high, color=line.get_color(), alpha=0.2, lw=0
        )


def _marker(steps: Numbers) -> str:
    """A line of one evaluation would not be seen."""
    return "." if steps.size == 1 else "-"


def _counted(runs: Iterable[Run]) -> str:
    """What ``env_steps`` counts: a run on a data set takes no step of its environment."""
    kinds = {"updates" if "dataset" in run.settings else "environment steps" for run in runs}
    return " or ".join(sorted(kinds))


def _colors(runs: Mapping[str, Mapping[str, Sequence[Run]]]) -> dict[str, Any]:
    """A colour for each group, however many environments it has runs in."""
    labels = dict.fromkeys(label for groups in runs.values() for label in groups)
    palette = colormaps["tab10" if len(labels) <= 10 else "tab20"]
    return {label: palette(index % palette.N) for index, label in enumerate(labels)}


def _fit_to_lines(axes: Axes) -> None:
    """Limits of the lines: the band of two or three seeds would squeeze everything else flat."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines])
    if values.size:
        margin = 0.1 * np.ptp(values) or 1.0
        axes.set_ylim(values.min() - margin, values.max() + margin)


def _named(label: str, runs: Sequence[Run]) -> str:
    seeds = "1 seed" if len(runs) == 1 else f"{len(runs)} seeds"
    return textwrap.fill(f"{label} ({seeds})", 60)
