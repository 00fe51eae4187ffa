"""Draw the learning curves of runs, averaged over seeds, and what their duals did.

Of runs with several rewards also what each preference reached: pareto_front.png.

    python recipes/plot.py runs/*
    python recipes/plot.py runs/* --output figures

Runs of equal settings are one curve; settings that set curves apart name them, or the folder of a
run where these are many.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mpo_torchrl.trainer.curves import CurveError, Run, group_runs, read_run
from mpo_torchrl.trainer.plot import draw_duals, draw_fronts, draw_learning_curves


def plot(paths: list[Path], output: Path) -> list[Path]:
    """Write the figures into the folder ``output``; they come back."""
    runs = read_runs(paths)
    groups = group_runs(runs)
    output.mkdir(parents=True, exist_ok=True)
    figures = [output / "learning_curves.png", output / "duals.png"]
    draw_learning_curves(figures[0], groups)
    draw_duals(figures[1], groups)
    several = [
        env for env, labels in groups.items() if all(g[0].objectives for g in labels.values())
    ]
    if several:
        figures.append(output / "pareto_front.png")
        draw_fronts(figures[-1], {env: groups[env] for env in several})
    return figures


def read_runs(paths: list[Path]) -> list[Run]:
    """Every run of the paths that has a row already; the others are named on stderr."""
    runs = []
    for path in paths:
        run = read_run(path)
        if run is None:
            print(f"skipped: {path} has no evaluation in a progress.csv", file=sys.stderr)
        else:
            runs.append(run)
    if not runs:
        raise CurveError(
            f"no runs found in {', '.join(map(str, paths))}; python recipes/mpo.py makes one."
        )
    return runs


def main() -> None:
    """Read the command line; one sentence and exit code 1 where a run cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python recipes/plot.py",
        description="Draw learning_curves.png (mean over seeds with its 95% confidence band) and "
        "duals.png (dual variables, KLs against their bounds, effective sample size); of runs with "
        "several rewards also pareto_front.png.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, help="folders of runs, or their progress.csv files"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("plots"), help="folder of the figures (plots)"
    )
    arguments = parser.parse_args()
    try:
        figures = plot(arguments.runs, arguments.output)
    except (CurveError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    for figure in figures:
        print(figure)


if __name__ == "__main__":
    main()
