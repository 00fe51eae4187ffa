"""Where the metrics of a run go: always a table, and one of TorchRL's loggers beside it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torchrl.record.loggers import Logger, MLFlowLogger, TensorboardLogger, WandbLogger

from mpo_torchrl.trainer.config import RunConfig
from mpo_torchrl.trainer.settings import SettingError
from mpo_torchrl.trainer.table_logger import TableLogger


def make_logger(config: RunConfig, run_dir: str | Path) -> TableLogger:
    """The table ``progress.csv`` in ``run_dir``, and what the setting ``logger`` asks for beside.

    - ``csv``: nothing more;
    - ``tensorboard``: event files in ``run_dir/tensorboard``;
    - ``wandb``: a run of the project ``WANDB_PROJECT``, or ``mpo_torchrl``; its files are in
      ``run_dir/wandb``. ``WANDB_MODE=offline`` needs neither network nor account;
    - ``mlflow``: a run in the experiment ``mpo-<env>`` of ``MLFLOW_TRACKING_URI``, or else of
      ``run_dir/mlflow.db``.

    Args:
        config (RunConfig): the settings of the run.
        run_dir (str or Path): the folder of the run.

    Returns:
        TableLogger: its ``log_hparams`` or first metric opens the other logger.

    Raises:
        SettingError: if there is no folder; when opened, if a package is missing or the logger
            refuses.

    Examples:
        >>> import tempfile
        >>> from mpo_torchrl.trainer import MPOConfig
        >>> folder = tempfile.mkdtemp()
        >>> logger = make_logger(MPOConfig(), folder)
        >>> _ = logger.log_metrics({"eval_return_mean": -150.0}, step=2000)
        >>> Path(folder, "progress.csv").read_text().split()
        ['env_steps,eval_return_mean', '2000,-150.0']
    """
    if not str(run_dir):
        raise SettingError(f"logger {config.logger!r} needs a folder for its files: set run_dir.")
    makers = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
    maker = makers.get(config.logger)
    folder = Path(run_dir).expanduser()
    also = maker and partial(_open, config.logger, partial(maker, config, folder.absolute()))
    return TableLogger("progress", str(folder), also=also)


def _open(name: str, make: Callable[[], Logger]) -> Logger:
    if importlib.util.find_spec(name) is None:
        raise SettingError(
            f"logger {name!r} needs a missing package: pip install 'mpo_torchrl[{name}]'."
        )
    try:
        return make()
    except Exception as error:  # each of them has exceptions of its own, which we cannot import
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise SettingError(f"logger {name!r} cannot be opened: {reason[0]}") from error


def _tensorboard(config: RunConfig, run_dir: Path) -> Logger:
    return TensorboardLogger("tensorboard", log_dir=str(run_dir))


def _wandb(config: RunConfig, run_dir: Path) -> Logger:
    project = os.environ.get("WANDB_PROJECT", "mpo_torchrl")
    return WandbLogger(run_dir.name, project=project, save_dir=str(run_dir))


def _mlflow(config: RunConfig, run_dir: Path) -> Logger:
    import mlflow

    asked_for = os.environ.get("MLFLOW_TRACKING_URI")
    uri = asked_for or f"sqlite:///{run_dir / 'mlflow.db'}"
    logger = _MLFlowLogger(f"mpo-{config.env}", tracking_uri=uri)
    if not asked_for:  # MLflow has set it, and the next run of this process would follow
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    mlflow.set_tag("mlflow.runName", run_dir.name)
    return logger


class _MLFlowLogger(MLFlowLogger):
    """Ends its run: TorchRL's leaves that to the end of the process, and no other could begin."""

    def shutdown(self, timeout: float | None = None) -> None:
        import mlflow

        mlflow.end_run()
        super().shutdown(timeout)
