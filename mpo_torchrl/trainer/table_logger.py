"""A learning curve in one table: progress.csv."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torchrl.record.loggers import Logger


class TableLogger(Logger):
    """A TorchRL logger that writes one table: a row a step, a column a metric.

    TorchRL's ``CSVLogger`` writes a file per metric without a header; a learning curve wants them
    side by side. Columns may come later, such as the losses with the first update.

    Args:
        exp_name (str): name of the file, without ``.csv``.
        log_dir (str): folder of the file, which is begun anew.
    """

    def __init__(self, exp_name: str, log_dir: str) -> None:
        self.rows: list[dict[str, float]] = []
        self.columns: list[str] = ["env_steps"]
        super().__init__(exp_name=exp_name, log_dir=log_dir)

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.log_dir) / f"{self.exp_name}.csv"

    def _create_experiment(self) -> TableLogger:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def log_metrics(
        self, metrics: Mapping[str, Any], step: int | None = None, *, keys_sep: str = "/"
    ) -> dict[str, Any]:
        """Add the metrics to the row of ``step``."""
        del keys_sep
        row = {name: float(value) for name, value in metrics.items()}
        step = step if step is not None else len(self.rows)
        if self.rows and self.rows[-1]["env_steps"] == step:
            self.rows[-1].update(row)
        else:
            self.rows.append({"env_steps": step, **row})
        self.columns += [name for name in row if name not in self.columns]
        self._write()
        return row

    def log_scalar(self, name: str, value: float, step: int | None = None) -> None:
        """Add one metric to the row of ``step``."""
        self.log_metrics({name: value}, step)

    def log_hparams(self, cfg: Any) -> None:
        """Settings are in the checkpoint and beside the table; the table is for numbers."""

    def log_video(self, name: str, video: Tensor, step: int | None = None, **kwargs: Any) -> None:
        """A table holds no video."""
        raise NotImplementedError("a table holds no video; use another of TorchRL's loggers.")

    def log_histogram(self, name: str, data: Sequence[Any], **kwargs: Any) -> None:
        """A table holds no histogram."""
        raise NotImplementedError("a table holds no histogram; use another of TorchRL's loggers.")

    def __repr__(self) -> str:
        return f"TableLogger({str(self.path)!r})"

    def _write(self) -> None:
        unfinished = self.path.with_suffix(".unfinished")
        with unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(unfinished, self.path)
