"""Writes the tables of benchmark.md from the CSV files of benchmark/: make results."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from runs import (
    ABLATIONS,
    AGENTS,
    FOLDER,
    PUBLISHED,
    SUITES,
    ablation_runs,
    benchmark_runs,
    further_runs,
)
from scipy.stats import bootstrap, trim_mean

from mpo_torchrl.trainer.curves import Numbers, Run, measured

PAGE = FOLDER / "benchmark.md"
MARKS = (10_000, 20_000, 30_000, 50_000, 100_000)
"""Steps at which ablations are compared."""


def returns_table(tasks: Sequence[str]) -> str:
    """A row for every agent in every task: what each seed ended with, and how it got there.

    Below those of a task stands what others have published for it.
    """
    rows = [("task", "agent", "steps", "each seed", "mean", "area under the curve", "minutes")]
    for task in tasks:
        agents = benchmark_runs(task)
        for name, runs in agents.items():
            last = last_returns(runs)
            steps = " / ".join(sorted({f"{run.last_step:,.0f}" for run in runs}))
            each = ", ".join(f"{value:.1f}" for value in last)
            areas = np.mean([area(run) for run in runs])
            minutes = ", ".join(f"{run.table['wall_seconds'][-1] / 60:.0f}" for run in runs)
            rows.append((task, name, steps, each, f"{last.mean():.1f}", f"{areas:.1f}", minutes))
        for name, value in PUBLISHED.get(task, {}).items() if agents else ():
            rows.append((task, f"{name}, published", "100,000", "", f"{value:.0f}", "", ""))
    return table(rows)


def ablations_table(task: str) -> str:
    """A row for every change of the settings: the return at each mark, as far as it was run.

    Further seeds stand below it: a difference smaller than theirs says nothing.
    """
    rows = [("settings", *(f"{mark:,}" for mark in MARKS))]
    for settings, runs in ablation_runs(task).items():
        rows.append((f"`{settings}`", *(return_at(runs, mark) for mark in MARKS)))
        for run in further_runs(task, settings):
            name = f"`{settings}`, {run.path.stem.replace('seed', 'seed ')}"
            rows.append((name, *(return_at([run], mark) for mark in MARKS)))
    return table(rows)


def return_at(runs: Sequence[Run], mark: int) -> str:
    """The mean return of the evaluations after so many steps; empty if a run has none there."""
    found = [dict(zip(*measured(run, "eval_return_mean"), strict=True)).get(mark) for run in runs]
    values = [value for value in found if value is not None]
    return f"{np.mean(values):.1f}" if len(values) == len(runs) else ""


def summary_table(tasks: Sequence[str]) -> str:
    """Interquartile means over tasks and seeds, in units of SAC's mean in each task.

    A task with one seed is left out: nothing can be drawn from it.
    """
    rows = [("agent", "tasks", "interquartile mean", "95% interval")]
    found = [benchmark_runs(task) for task in tasks]
    found = [agents for agents in found if AGENTS["sac"] in agents]
    for name in AGENTS.values():
        scores = [
            last_returns(agents[name]) / last_returns(agents[AGENTS["sac"]]).mean()
            for agents in found
            if len(agents.get(name, ())) > 1
        ]
        if scores:
            low, high = stratified_interval(scores)
            mean = interquartile_mean(*scores)
            rows.append((name, f"{len(scores)}", f"{mean:.2f}", f"{low:.2f} to {high:.2f}"))
    return table(rows)


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows as Markdown, the first of them the head."""
    head, *body = [f"| {' | '.join(cells)} |" for cells in rows]
    rule = "|" + " --- |" * len(rows[0])
    return "\n".join([head, rule, *body]) if body else "Not enough runs yet."


def last_returns(runs: Sequence[Run]) -> Numbers:
    """The return of each run at its last evaluation."""
    return np.array([measured(run, "eval_return_mean")[1][-1] for run in runs])


def area(run: Run) -> float:
    """The area under the learning curve, divided by its width: a mean return over the steps."""
    steps, values = measured(run, "eval_return_mean")
    return float(np.trapezoid(values, steps) / (steps[-1] - steps[0]))


def interquartile_mean(*scores: Numbers, axis: int = -1) -> Numbers:
    """The mean of the middle half of all scores (Agarwal et al., 2021, arXiv:2108.13264)."""
    return trim_mean(np.concatenate(scores, axis), 0.25, axis)


def stratified_interval(scores: Sequence[Numbers]) -> tuple[float, float]:
    """The bootstrap's 95% interval of the interquartile mean; seeds are drawn within each task."""
    found = bootstrap(
        scores,
        interquartile_mean,
        method="percentile",
        n_resamples=100_000,  # of few seeds there are few means, a step apart
        batch=10_000,
        rng=np.random.default_rng(0),
    )
    return found.confidence_interval


def fill(page: str, name: str, table: str) -> str:
    """The page with the table between its marks ``<!-- name -->`` and ``<!-- end of name -->``."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"{PAGE} has no place for the table: {begin} {end}.")
    return pattern.sub(lambda _: f"{begin}\n\n{table}\n\n{end}", page)


def with_tables(page: str) -> str:
    """The page with every table as the CSV files have it."""
    for suite, tasks in SUITES.items():
        if not any(benchmark_runs(task) for task in tasks):
            continue
        page = fill(page, f"returns in {suite}", returns_table(tasks))
    for task in ABLATIONS:
        page = fill(page, f"ablations on {task}", ablations_table(task))
    return fill(page, "summary", summary_table(SUITES["mujoco"]))


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
