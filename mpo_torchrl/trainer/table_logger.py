"""A learning curve in one table, progress.csv, and the way from there to other loggers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torchrl.record.loggers import Logger

from mpo_torchrl.trainer.files import replace_text


class TableLogger(Logger):
    """A TorchRL logger that writes one table: a row a step, a column a metric.

    TorchRL's ``CSVLogger`` writes a file per metric without a header; a learning curve wants them
    side by side. Columns may come later, such as the losses with the first update.

    The rows are part of the ``state_dict``: a run that goes on from a checkpoint continues the
    table from there.

    Args:
        exp_name (str): name of the file, without ``.csv``.
        log_dir (str): folder of the file, made when there is something to write.
        also (callable, optional): makes another of TorchRL's loggers, which receives everything
            too. It is called when there is something to log, so that nothing is opened for a run
            that is only looked at.

    Examples:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> logger = TableLogger("progress", folder)
        >>> _ = logger.log_metrics({"eval_return_mean": -150.0}, step=2000)
        >>> print(logger.path.read_text())
        env_steps,eval_return_mean
        2000,-150.0
    """

    def __init__(
        self, exp_name: str, log_dir: str, also: Callable[[], Logger] | None = None
    ) -> None:
        self.rows: list[dict[str, float]] = []
        self.columns: list[str] = ["env_steps"]
        self.further: Logger | None = None
        self._also = also
        super().__init__(exp_name=exp_name, log_dir=log_dir)

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.log_dir) / f"{self.exp_name}.csv"

    def _create_experiment(self) -> Path:
        return self.path

    def log_metrics(
        self, metrics: Mapping[str, Any], step: int | None = None, *, keys_sep: str = "/"
    ) -> dict[str, Any]:
        """Add the metrics to the row of ``step``.

        What the row holds already is not passed on a second time: TorchRL's trainer logs what
        shows in its progress bar once more.
        """
        del keys_sep
        step = step if step is not None else len(self.rows)
        if not self.rows or self.rows[-1]["env_steps"] != step:
            self.rows.append({"env_steps": step})
        row = {name: float(value) for name, value in metrics.items()}
        known = self.rows[-1]
        news = {name: value for name, value in row.items() if known.get(name) != value}
        known.update(row)
        self.columns += [name for name in row if name not in self.columns]
        self._write()
        for logger in self._others() if news else ():
            logger.log_metrics(news, step)
            logger.flush()  # a run is watched while it runs
        return row

    def log_scalar(self, name: str, value: float, step: int | None = None) -> None:
        """Add one metric to the row of ``step``."""
        self.log_metrics({name: value}, step)

    def log_hparams(self, cfg: Mapping[str, Any]) -> None:
        """Write the settings beside the table as ``settings.json``, and pass them on once."""
        replace_text(self.path.with_name("settings.json"), json.dumps(dict(cfg), indent=2) + "\n")
        if self.further is None:
            # TensorBoard takes no lists.
            plain = {k: str(v) if isinstance(v, list) else v for k, v in cfg.items()}
            for logger in self._others():
                logger.log_hparams(plain)

    def log_video(self, name: str, video: Tensor, step: int | None = None, **kwargs: Any) -> None:
        """Pass the video on; a table holds none."""
        if self._also is None:
            raise NotImplementedError("a table holds no video; use another of TorchRL's loggers.")
        for logger in self._others():
            logger.log_video(name, video, step=step, **kwargs)

    def log_histogram(self, name: str, data: Sequence[Any], **kwargs: Any) -> None:
        """Pass the histogram on; a table holds none."""
        if self._also is None:
            raise NotImplementedError(
                "a table holds no histogram; use another of TorchRL's loggers."
            )
        for logger in self._others():
            logger.log_histogram(name, data, **kwargs)

    def shutdown(self, timeout: float | None = None) -> None:
        """End what the other logger began; the table itself is complete at any time."""
        if self.further is not None:
            self.further.shutdown(timeout)
        super().shutdown(timeout)

    def __repr__(self) -> str:
        return f"TableLogger({str(self.path)!r})"

    def _others(self) -> list[Logger]:
        """The other logger, if there is one; opened by the first use."""
        if self._also is None:
            return []
        if self.further is None:
            self.further = self._also()
        return [self.further]

    def _checkpoint_state(self) -> dict[str, Any]:
        return {"rows": [dict(row) for row in self.rows]}

    def _load_checkpoint_state(self, state_dict: Mapping[str, Any]) -> None:
        self.rows = [dict(row) for row in state_dict["rows"]]
        self.columns = list(
            dict.fromkeys(["env_steps", *(name for row in self.rows for name in row)])
        )
        self._write()

    def _write(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        replace_text(self.path, text.getvalue())
