"""The runs whose CSV files are kept beside this file."""

from __future__ import annotations

from pathlib import Path

from mpo_torchrl.trainer.curves import Run, read_run

FOLDER = Path(__file__).parent


def seeds(folder: str) -> list[Run]:
    """The runs of a folder, one a seed, in order; none if there is no such folder."""
    runs = [read_run(path) for path in sorted((FOLDER / folder).glob("seed*.csv"))]
    return [run for run in runs if run is not None]
