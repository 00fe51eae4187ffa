"""Learning curves of finished and running runs: read, grouped by settings, averaged over seeds."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpo_torchrl.trainer.results import OBJECTIVE

Numbers = NDArray[np.float64]

IRRELEVANT = {
    *("seed", "run_dir", "device", "num_threads", "compile", "progress_bar", "logger"),
    *("total_timesteps", "eval_every", "checkpoint_every", "keep_checkpoints", "resume"),
    *("ray_address", "collector_cpus"),
}
"""Settings in which runs of one group may differ: they do not change what is learned by a step."""

# The 0.975 quantile of Student's t with 1, 2, ... degrees of freedom; 1.96 is that of the normal.
_STUDENT_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)


class CurveError(ValueError):
    """A run that cannot be read, in one sentence."""


class Run(NamedTuple):
    """A run's folder: where it is, its settings (empty if it has none) and its table."""

    path: Path
    settings: dict[str, Any]
    table: dict[str, Numbers]

    @property
    def last_step(self) -> float:
        """Environment steps of the last row."""
        return float(self.table["env_steps"][-1])

    @property
    def objectives(self) -> list[str]:
        """The names of several rewards; none for one."""
        return [name.removeprefix(OBJECTIVE) for name in self.table if OBJECTIVE in name]


class Curve(NamedTuple):
    """A metric over environment steps, ``[S]`` each: the mean over runs and a band around it."""

    steps: Numbers
    mean: Numbers
    low: Numbers
    high: Numbers


def read_run(path: Path) -> Run | None:
    """The run in a folder with ``progress.csv``, or the table itself; ``None`` if there is no row.

    Raises:
        CurveError: if the table or the settings cannot be read; file and fault are named.
    """
    table = path / "progress.csv" if path.is_dir() else path
    if not table.is_file():
        return None
    columns = _read_table(table)
    if not columns["env_steps"].size:
        return None
    settings = table.with_name("settings.json")
    try:
        known = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    except (OSError, ValueError) as error:
        raise CurveError(f"{settings} cannot be read: {error}.") from error
    if not isinstance(known, dict):
        raise CurveError(f"{settings} cannot be read: it holds no settings.")
    return Run(path, known, columns)


def group_runs(runs: Iterable[Run]) -> dict[str, dict[str, list[Run]]]:
    """Runs of equal settings together: environment, then what sets a group apart, then its runs.

    Seed, folder, device and the like are no difference. Of two runs with one seed the longer one
    is kept: the same numbers twice would only make a mean look surer than it is.
    """
    by_settings: dict[str, dict[Any, Run]] = {}
    for run in runs:
        kept = {name: v for name, v in sorted(run.settings.items()) if name not in IRRELEVANT}
        seeds = by_settings.setdefault(json.dumps(kept), {})
        seed = run.settings.get("seed", run.path)
        if seed not in seeds or run.last_step > seeds[seed].last_step:
            seeds[seed] = run
    by_env: dict[str, list[list[Run]]] = {}
    for seeds in by_settings.values():
        members = list(seeds.values())
        by_env.setdefault(members[0].settings.get("env", "environment unknown"), []).append(members)
    return {
        env: dict(zip(_labels([members[0] for members in groups]), groups, strict=True))
        for env, groups in by_env.items()
    }


def confidence_band(runs: Sequence[Run], metric: str) -> Curve:
    """Mean over runs and its 95% confidence band: Student's t, as if runs were normal draws.

    With one run there is no band; with two or three it is wide, as it should be.
    """
    steps, values = _aligned(runs, metric)  # [S], [R, S]
    number, mean = len(values), values.mean(0)
    half = np.zeros_like(mean)
    if number > 1:
        quantile = (*_STUDENT_T, 1.96)[min(number - 2, len(_STUDENT_T))]
        half = quantile * values.std(0, ddof=1) / np.sqrt(number)
    return Curve(steps, mean, mean - half, mean + half)


def range_band(runs: Sequence[Run], metric: str) -> Curve:
    """Mean over runs and the range from the least to the greatest of them."""
    steps, values = _aligned(runs, metric)
    return Curve(steps, values.mean(0), values.min(0), values.max(0))


def last_returns(runs: Sequence[Run]) -> Numbers:
    """Mean return of each of several rewards in the last evaluation of each run: ``[R, K]``."""
    names = runs[0].objectives
    return np.array([[run.table[f"{OBJECTIVE}{name}"][-1] for name in names] for run in runs])


def on_front(points: Numbers) -> NDArray[np.bool_]:
    """Which of the points ``[P, K]`` no other one beats: as good in all, better in one: ``[P]``."""
    as_good = (points[:, None] >= points).all(-1)  # [P, P]: is the first as good as the second
    beats = as_good & (points[:, None] > points).any(-1)
    return np.logical_not(beats.any(0))


def measured(run: Run, metric: str) -> tuple[Numbers, Numbers]:
    """Steps and values of a metric, rows without it left out (such as losses before updates)."""
    values = run.table.get(metric, np.array([]))
    there = np.isfinite(values)
    return run.table["env_steps"][: values.size][there], values[there]


def _aligned(runs: Sequence[Run], metric: str) -> tuple[Numbers, Numbers]:
    """Every run at the steps of all of them, as far as the shortest goes: ``[S]``, ``[R, S]``."""
    curves = [measured(run, metric) for run in runs]
    curves = [(steps, values) for steps, values in curves if steps.size]
    if not curves:
        return np.array([]), np.empty((1, 0))
    first = max(steps[0] for steps, _ in curves)
    last = min(steps[-1] for steps, _ in curves)
    steps = np.unique(np.concatenate([steps for steps, _ in curves]))
    steps = steps[(steps >= first) & (steps <= last)]
    return steps, np.stack([np.interp(steps, *curve) for curve in curves])


def _labels(runs: Sequence[Run]) -> list[str]:
    """What sets groups of one environment apart, each given by one of its runs.

    What more than half of them have in common is not repeated; a group with more settings of its
    own than a legend holds goes by the folder of the run.
    """
    names = dict.fromkeys(name for run in runs for name in run.settings if name not in IRRELEVANT)
    apart: list[list[str]] = [[] for _ in runs]
    for name in names:
        values = [json.dumps(run.settings.get(name)) for run in runs]
        usual, count = Counter(values).most_common(1)[0]
        for run, value, label in zip(runs, values, apart, strict=True):
            if value != usual or 2 * count <= len(runs):
                known = name in run.settings
                label.append(f"{name}={run.settings[name]}" if known else f"no {name}")
    return [_label(run, label, len(runs)) for run, label in zip(runs, apart, strict=True)]


def _label(run: Run, apart: Sequence[str], num_groups: int) -> str:
    if not apart:
        return "all runs" if num_groups == 1 else "common settings"
    label = ", ".join(apart)
    return label if len(label) <= _LONGEST_LABEL else f"{run.path}, {len(apart)} other settings"


_LONGEST_LABEL = 120  # two lines of a legend


def _read_table(path: Path) -> dict[str, Numbers]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            rows, names = list(reader), list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CurveError(f"{path} cannot be read: {error}.") from error
    for needed in ("env_steps", "eval_return_mean"):
        if needed not in names:
            raise CurveError(f"{path} has no column {needed!r}; it is no progress.csv of a run.")
    return {name: _column(path, name, [row[name] for row in rows]) for name in names}


def _column(path: Path, name: str, cells: Sequence[str | None]) -> Numbers:
    values = np.full(len(cells), np.nan)
    for index, cell in enumerate(cells):
        try:
            values[index] = float(cell) if cell else np.nan
        except ValueError:
            raise CurveError(
                f"{path}, line {index + 2}: {name} must be a number, got {cell!r}."
            ) from None
    if name == "env_steps" and not (np.isfinite(values).all() and (np.diff(values) > 0).all()):
        raise CurveError(f"{path}: env_steps must rise from row to row.")
    return values
