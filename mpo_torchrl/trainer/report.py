"""What a run tells of itself: evaluations, the small checkpoints beside them, its last figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tensordict import TensorDictBase
from torch import Tensor
from torchrl.record.loggers import Logger

from mpo_torchrl.trainer.checkpoint import last_good, save_learner
from mpo_torchrl.trainer.collection import NonFiniteError
from mpo_torchrl.trainer.config import RunConfig
from mpo_torchrl.trainer.digest import state_sha256
from mpo_torchrl.trainer.learning import is_finite
from mpo_torchrl.trainer.progress import Progress
from mpo_torchrl.trainer.results import final_metrics, progress_row, write_metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Evaluates a run; every evaluation is a row of the log and a checkpoint of the learner.

    Keyword Args:
        config (RunConfig): the run's settings, kept in each checkpoint.
        progress (Progress): the run's counters; returns are noted there.
        learner (mapping): what is learned, each with a ``state_dict``: ``loss``, ``optimizer``.
        play (callable): plays the episodes of an evaluation, returns ``[E]`` or, of ``K`` rewards,
            ``[E, K]``.
        logger (Logger, optional): receives the rows.
        run_dir (Path, optional): the folder of ``checkpoint.zip``, ``best.zip`` and
            ``metrics.json``; without it nothing is written.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.trainer import MPOConfig, Progress, Report
        >>> progress = Progress(env_steps=2000)
        >>> report = Report(
        ...     config=MPOConfig(),
        ...     progress=progress,
        ...     learner={"loss": torch.nn.Linear(2, 1)},
        ...     play=lambda: torch.tensor([-160.0, -140.0]),
        ... )
        >>> report.evaluate()["eval_return_mean"]
        -150.0
        >>> report.finish({"kl_mean": 0.1})["kl_mean"]
        0.1
    """

    config: RunConfig
    progress: Progress
    learner: Mapping[str, Any]
    play: Callable[[], Tensor]
    logger: Logger | None = None
    run_dir: Path | None = None

    def evaluate(self, losses: TensorDictBase | None = None) -> dict[str, float]:
        """Plays an evaluation, logs its row and keeps the learner.

        Args:
            losses (TensorDictBase, optional): what the last update gave; it stands in the row.

        Returns:
            dict: the row, as :func:`~mpo_torchrl.trainer.progress_row` makes it.

        Raises:
            CheckpointError: if the learner cannot be written; what was there before is untouched.
        """
        best = self.progress.note(self.play())
        row = progress_row(self.progress, losses)
        if self.logger is not None:
            self.logger.log_metrics(row, step=self.progress.env_steps)
        self._keep_learner(best)
        return row

    @contextmanager
    def keeping_last_good(self) -> Iterator[None]:
        """Keeps what was learned before a bad number; the error then says where it is.

        Raises:
            NonFiniteError: what was raised inside, with that sentence.
        """
        try:
            yield
        except NonFiniteError as error:
            if self.run_dir is None:
                raise
            if is_finite(self.learner["loss"]):
                self._keep_learner()
            raise NonFiniteError(f"{error} {last_good(self.run_dir)}") from error

    def finish(self, diagnostics: Mapping[str, float], **figures: Any) -> dict[str, Any]:
        """The figures of the run, after a last evaluation unless there was one at this step.

        Args:
            diagnostics (mapping): what the loss said last.
            **figures: further ones, which may take the place of others.

        Returns:
            dict: what is written to ``metrics.json``.
        """
        if self.progress.evaluated_at != self.progress.env_steps:
            self.evaluate()
        metrics = final_metrics(
            self.config,
            self.progress,
            state_sha256=state_sha256(**self.learner),
            diagnostics=diagnostics,
        )
        metrics |= figures
        if self.run_dir is not None:
            write_metrics(self.run_dir / "metrics.json", metrics)
        return metrics

    def _keep_learner(self, best: bool = False) -> None:
        if self.run_dir is not None:
            save_learner(self.run_dir, self.config, self.progress, self.learner, best)
