"""Runs: settings, and the blocks that recipes and :class:`MPOTrainer` are both made of."""

from __future__ import annotations

from importlib.util import find_spec

from mpo_torchrl.trainer.checkpoint import (
    last_good,
    load_checkpoint,
    read_config,
    save_checkpoint,
    save_learner,
)
from mpo_torchrl.trainer.collection import (
    NonFiniteError,
    NStepReturns,
    finished_returns,
    make_collector,
    make_replay_buffer,
    transitions,
)
from mpo_torchrl.trainer.compiled import update_loss
from mpo_torchrl.trainer.config import MPOConfig
from mpo_torchrl.trainer.digest import state_sha256
from mpo_torchrl.trainer.environment import make_env, make_training_env
from mpo_torchrl.trainer.episode import EpisodeMemory
from mpo_torchrl.trainer.evaluation import evaluate, make_evaluation_env
from mpo_torchrl.trainer.interrupt import stop_request
from mpo_torchrl.trainer.learning import (
    diagnose,
    is_finite,
    make_loss,
    make_optimizer,
    make_target_updater,
    total_loss,
)
from mpo_torchrl.trainer.loggers import make_logger
from mpo_torchrl.trainer.normalizer import ObservationNormalizer, make_normalizer
from mpo_torchrl.trainer.offline_config import OfflineConfig
from mpo_torchrl.trainer.on_policy import (
    RewardScale,
    add_advantages,
    choose_policy,
    make_vmpo_loss,
    minibatches,
)
from mpo_torchrl.trainer.policy import MeanPolicy, SamplingPolicy
from mpo_torchrl.trainer.progress import Progress
from mpo_torchrl.trainer.report import Report
from mpo_torchrl.trainer.results import (
    due,
    final_metrics,
    make_run_dir,
    progress_line,
    progress_row,
    write_metrics,
)
from mpo_torchrl.trainer.resume import RunStates
from mpo_torchrl.trainer.seeding import seed_everything
from mpo_torchrl.trainer.settings import SettingError
from mpo_torchrl.trainer.table_logger import TableLogger
from mpo_torchrl.trainer.trainer import MPOTrainer
from mpo_torchrl.trainer.vmpo_config import VMPOConfig

if find_spec("hydra") is not None:
    import mpo_torchrl.trainer.hydra_configs  # noqa: F401  registers loss: mpo and trainer: mpo

__all__ = [
    "EpisodeMemory",
    "MPOConfig",
    "MPOTrainer",
    "MeanPolicy",
    "NStepReturns",
    "NonFiniteError",
    "ObservationNormalizer",
    "OfflineConfig",
    "Progress",
    "Report",
    "RunStates",
    "SamplingPolicy",
    "SettingError",
    "TableLogger",
    "diagnose",
    "due",
    "evaluate",
    "final_metrics",
    "finished_returns",
    "is_finite",
    "last_good",
    "load_checkpoint",
    "make_collector",
    "make_env",
    "make_evaluation_env",
    "make_logger",
    "make_loss",
    "make_normalizer",
    "make_optimizer",
    "make_replay_buffer",
    "make_run_dir",
    "make_target_updater",
    "make_training_env",
    "progress_line",
    "progress_row",
    "read_config",
    "save_checkpoint",
    "save_learner",
    "seed_everything",
    "state_sha256",
    "stop_request",
    "total_loss",
    "transitions",
    "update_loss",
    "write_metrics",
    "RewardScale",
    "VMPOConfig",
    "add_advantages",
    "choose_policy",
    "minibatches",
    "make_vmpo_loss",
]
