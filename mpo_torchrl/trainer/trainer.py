"""MPO as a TorchRL trainer: three lines from an environment's name to a trained policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import nn
from torchrl.collectors import BaseCollector
from torchrl.data import ReplayBuffer
from torchrl.envs import EnvBase
from torchrl.objectives.utils import TargetNetUpdater
from torchrl.record.loggers import Logger
from torchrl.trainers import (
    ReplayBufferTrainer,
    TargetNetUpdaterHook,
    Trainer,
)

from mpo_torchrl.loss.improvement import ImprovementLoss
from mpo_torchrl.trainer.checkpoint import (
    holds,
    load_checkpoint,
    read_config,
    save_checkpoint,
)
from mpo_torchrl.trainer.collection import NonFiniteError, make_collector, make_replay_buffer
from mpo_torchrl.trainer.compiled import update_loss
from mpo_torchrl.trainer.config import MPOConfig
from mpo_torchrl.trainer.environment import make_training_env
from mpo_torchrl.trainer.evaluation import evaluate, make_evaluation_env
from mpo_torchrl.trainer.hooks import Evaluate, KeepTransitions, SaveState, UpdateStepper
from mpo_torchrl.trainer.interrupt import StopRequest, stop_request
from mpo_torchrl.trainer.learning import (
    diagnose,
    make_loss,
    make_optimizer,
    make_target_updater,
)
from mpo_torchrl.trainer.loggers import make_logger
from mpo_torchrl.trainer.normalizer import make_normalizer
from mpo_torchrl.trainer.policy import MeanPolicy
from mpo_torchrl.trainer.progress import Progress
from mpo_torchrl.trainer.report import Report
from mpo_torchrl.trainer.resume import RunStates
from mpo_torchrl.trainer.seeding import OwnRandomState, keep_random_state, seed_everything
from mpo_torchrl.trainer.table_logger import TableLogger


class MPOTrainer(Trainer):
    """Collects, learns and evaluates; ``from_env`` builds every part from settings.

    The same settings and seed give the same parameters, bit for bit, as ``recipes/mpo.py``. With
    ``run_dir`` set, the folder receives ``settings.json``, ``progress.csv``, ``checkpoint.zip``,
    ``best.zip`` and ``metrics.json``, and the states from which a trainer with the same settings
    continues the run; without it nothing is written.

    Keyword Args:
        collector (BaseCollector): the source of transitions.
        loss_module (ImprovementLoss): what is trained, an ``MPOLoss`` or another off-policy one.
        optimizer (torch.optim.Optimizer): steps networks and duals.
        replay_buffer (ReplayBuffer): transitions are put there and sampled from there.
        target_net_updater (TargetNetUpdater): steps the targets after each update.
        config (MPOConfig): the settings the parts were made from.
        logger (Logger, optional): one of TorchRL's; receives a row of metrics an evaluation.
        **kwargs: further arguments of :class:`torchrl.trainers.Trainer`.

    Examples:
        >>> from mpo_torchrl import MPOTrainer
        >>> trainer = MPOTrainer.from_env(
        ...     "Pendulum-v1", seed=42, learning_starts=20, hidden=16, eval_episodes=1,
        ...     progress_bar=False
        ... )
        >>> metrics = trainer.train(total_timesteps=40)
        >>> metrics["env_steps"], metrics["updates"]
        (40, 30)
        >>> trainer.policy(torch.zeros(3)).shape
        torch.Size([1])
    """

    collector: BaseCollector

    def __init__(
        self,
        *,
        collector: BaseCollector,
        loss_module: ImprovementLoss,
        optimizer: torch.optim.Optimizer,
        replay_buffer: ReplayBuffer,
        target_net_updater: TargetNetUpdater,
        config: MPOConfig,
        logger: Logger | None = None,
        **kwargs: Any,
    ) -> None:
        self.config = config
        self.stepper = UpdateStepper(
            update_loss(loss_module, compile=config.compile, policy_delay=config.policy_delay)
        )
        super().__init__(
            collector=collector,
            total_frames=config.total_timesteps,
            frame_skip=1,
            optim_steps_per_batch=config.updates_per_batch,
            loss_module=loss_module,
            optimizer=optimizer,
            optimization_stepper=self.stepper,
            replay_buffer=replay_buffer,
            target_net_updater=target_net_updater,
            logger=logger,
            progress_bar=config.progress_bar,
            log_interval=0,
            auto_log_optim_steps=False,
            **kwargs,
        )
        # TorchRL keeps these on the class: two trainers would share them.
        self.collected_frames = self._optim_count = self._last_save = 0
        self._last_log: dict[str, int] = {}
        self.progress = Progress([*config.bounds])
        self.stop = StopRequest()
        self.finished = self._closed = False
        self.random_state = OwnRandomState()  # other trainers draw from the process's meanwhile
        self.states: RunStates | None = None
        if config.run_dir:
            run_dir = Path(config.run_dir).expanduser()
            self.states = RunStates(run_dir, config, self.progress, **self.components)

        self.register_op("batch_process", KeepTransitions(self))
        self.register_op("process_optim_batch", ReplayBufferTrainer(replay_buffer).sample)
        self.register_op("post_optim", TargetNetUpdaterHook(target_net_updater))
        self.register_op("post_steps", lambda: self.collector.update_policy_weights_())
        self.register_op("post_steps", self._count)
        self.register_op("post_steps_log", Evaluate(self, config.eval_every))
        self.register_op("post_steps_log", SaveState(self, config.checkpoint_every))

    @classmethod
    def from_env(cls, env: str, **settings: Any) -> MPOTrainer:
        """A trainer for a Gymnasium id; ``settings`` are those of :class:`MPOConfig`.

        Raises:
            SettingError: if a setting is unknown or impossible, or the environment unsuited.
        """
        return cls.from_config(MPOConfig.from_mapping({"env": env, **settings}))

    @classmethod
    def from_config(cls, config: MPOConfig, logger: Logger | None = None) -> MPOTrainer:
        """A trainer with every part made from settings, in the order of ``recipes/mpo.py``.

        A run that is already in ``run_dir`` is continued, as the setting ``resume`` says.

        Raises:
            SettingError: if that run has other settings, or there is none and ``resume=must``.
            CheckpointError: if there are states of that run and none can be loaded.
        """
        trainer = cls._from_config(config, logger)
        if trainer.states is not None and trainer.states.restore() is not None:
            trainer._take_over_counters()
            trainer.random_state.keep()
        return trainer

    @classmethod
    def _from_config(cls, config: MPOConfig, logger: Logger | None = None) -> MPOTrainer:
        if config.num_threads:
            torch.set_num_threads(config.num_threads)
        seed_everything(config.seed)
        env = make_training_env(config)
        env.set_seed(config.seed)
        actor, loss = make_loss(env, config)
        normalizer = make_normalizer(env, loss, config)
        optimizer = make_optimizer(loss, config)
        target_updater = make_target_updater(loss, config)
        if logger is None and (config.run_dir or config.logger != "csv"):
            logger = make_logger(config, config.run_dir)
        return cls(
            collector=make_collector(env, actor, config, normalizer),
            loss_module=loss,
            optimizer=optimizer,
            replay_buffer=make_replay_buffer(config, normalizer),
            target_net_updater=target_updater,
            config=config,
            logger=logger,
        )

    @cached_property
    def policy(self) -> MeanPolicy:
        """The policy for use; an observation, or a TensorDict with one, gives the mean action."""
        return MeanPolicy(self.loss_module.actor_network, self._normalizer)

    @property
    def _normalizer(self) -> nn.Module | None:
        return self.loss_module._modules.get("normalizer")

    @cached_property
    def evaluation_env(self) -> EnvBase:
        """The environments of an evaluation, made when the first one is due."""
        return make_evaluation_env(self.config)

    @property
    def updates(self) -> int:
        """Optimizer steps so far."""
        return self._optim_count

    @property
    def learner(self) -> dict[str, Any]:
        """What is learned, the components of ``checkpoint.zip`` by name."""
        return {"loss": self.loss_module, "optimizer": self.optimizer}

    @property
    def report(self) -> Report:
        """What evaluates this run, and keeps what it says of itself."""
        run_dir = self.config.run_dir
        return Report(
            config=self.config,
            progress=self.progress,
            learner=self.learner,
            play=lambda: evaluate(self.evaluation_env, self.policy),
            logger=self.logger,
            run_dir=Path(run_dir).expanduser() if run_dir else None,
        )

    @property
    def components(self) -> dict[str, Any]:
        """Everything that changes as training goes on, by name, but for counters and randomness."""
        components = {
            **self.learner,
            "target_updater": self.target_net_updater,
            "collector": self.collector,
            "replay_buffer": self.replay_buffer,
        }
        if self.logger is not None:
            components["table"] = self.logger
        return components

    def train(self, total_timesteps: int | None = None) -> dict[str, Any]:
        """Train until ``total_timesteps`` steps were taken in all; may be called again for more.

        Ctrl-C ends it early, at a clean point: after an evaluation, and with everything saved if
        there is a ``run_dir``.

        Args:
            total_timesteps (int, optional): environment steps since the very first one, those
                before :meth:`save` included; the setting's value by default.

        Returns:
            dict: ``mean_reward``, which is ``eval_return_mean``, with its stddev, the counters
            and what the loss reports after the last update.

        Raises:
            SettingError: if no update could happen in that many steps.
            NonFiniteError: on a NaN or an infinity; what was learned before is saved if there is
                a ``run_dir``.
            CheckpointError: if the ``run_dir`` cannot be written to; what was saved before is
                untouched.
            RuntimeError: if the trainer was closed.
        """
        self._require_open("MPOTrainer.load goes on from a file that was saved before")
        if total_timesteps is not None:
            self.config = dataclasses.replace(self.config, total_timesteps=total_timesteps)
            self.total_frames = total_timesteps
        if isinstance(self.logger, TableLogger):
            self.logger.log_hparams(self.config.to_dict())
        self.progress.start_clock()
        with self.random_state.used():
            try:
                if self.collected_frames < self.total_frames:
                    with (
                        self.report.keeping_last_good(),
                        stop_request() as self.stop,
                        _kept_open(self.collector),
                    ):
                        self._train()
            finally:
                self.progress.stop_clock()
                self._stop_training = False
            return self._finish()

    def optim_steps(self, batch: TensorDictBase) -> None:
        """Update, unless a loaded trainer is still filling its replay buffer with its policy."""
        steps = len(self.replay_buffer) + self.config.waiting_steps
        if steps >= min(self.config.random_steps, self.config.buffer_size):
            super().optim_steps(batch)

    def evaluate(self) -> dict[str, float]:
        """Play ``eval_episodes`` episodes with the mean action; log and save if asked to."""
        return self.report.evaluate(self.stepper.losses)

    def save(self, path: str | Path, *, learner_only: bool = False) -> Path:
        """Write the trainer into one file, from which :meth:`load` goes on bit for bit.

        Args:
            path (str or Path): the file.

        Keyword Args:
            learner_only (bool): leave out replay buffer, environment and random states. The file
                is small, enough to evaluate and share the policy. ``False`` by default.

        Raises:
            CheckpointError: if the file cannot be written; one that was there is untouched.
            RuntimeError: if the trainer was closed, unless ``learner_only``.
        """
        components = self.learner
        if not learner_only:
            self._require_open("with learner_only=True what it learned can be saved")
            components = {**self.components, **self._counters_and_randomness}
            components.pop("table", None)  # it belongs to the folder of this run
        return save_checkpoint(path, self.config, self.progress.counters, **components)

    @classmethod
    def load(cls, path: str | Path) -> MPOTrainer:
        """A trainer as it was saved; code in the file is never run.

        It writes nothing: a run in a folder is continued by :meth:`from_config` with that
        ``run_dir``. Where the file holds the learner only, the policy fills the replay buffer
        with ``learning_starts`` steps before the next update.

        Raises:
            CheckpointError: if the file is missing, damaged, of other dimensions or no checkpoint.
        """
        trainer = cls._from_config(dataclasses.replace(read_config(path), run_dir="", logger="csv"))
        if holds(path, "replay_buffer"):
            load_checkpoint(path, **trainer.components)
            load_checkpoint(path, **trainer._counters_and_randomness)
        else:
            counters = load_checkpoint(path, **trainer.learner)
            trainer.progress.load_state_dict(counters)
            trainer._collect_with_policy()
        trainer._take_over_counters()
        return trainer

    def close(self) -> None:
        """Close the environments and the logger.

        The policy can still be used, and saved with ``learner_only=True``.
        """
        self._closed = True
        self.collector.shutdown()
        if self.logger is not None:
            self.logger.shutdown()
        if "evaluation_env" in self.__dict__:
            self.evaluation_env.close(raise_if_closed=False)  # made, perhaps never opened

    @property
    def _counters_and_randomness(self) -> dict[str, Any]:
        return {"progress": self.progress, "random_state": self.random_state}

    def _require_open(self, instead: str) -> None:
        if self._closed:
            raise RuntimeError(f"the trainer was closed, its environments are gone; {instead}.")

    def _count(self) -> None:
        """Hand over TorchRL's counters, and decide once for all hooks whether this is the end."""
        self.progress.env_steps, self.progress.updates = self.collected_frames, self.updates
        self.finished = self.stop.received or self.collected_frames >= self.total_frames
        if self.stop.received:
            self.request_stop("interrupted")

    def _take_over_counters(self) -> None:
        self.collected_frames, self._optim_count = self.progress.env_steps, self.progress.updates

    def _collect_with_policy(self) -> None:
        """Begin to collect without random actions, and not with the first episodes again."""
        self.collector.shutdown()
        env = make_training_env(self.config)
        env.set_seed(self.config.seed + self.progress.env_steps)
        actor = self.loss_module.actor_network
        self.collector = make_collector(env, actor, self.config, self._normalizer, random_steps=0)

    def _finish(self) -> dict[str, Any]:
        """The figures of the run, after a last evaluation unless there was one."""
        diagnostics: dict[str, float] = {}
        if len(self.replay_buffer):
            with keep_random_state():  # training may go on
                diagnostics = diagnose(self.loss_module, self.replay_buffer.sample())
        return self.report.finish(diagnostics)

    def _train(self) -> None:
        """TorchRL's loop; what it counted is handed over also where a bad number ends it."""
        try:
            super().train()
        except NonFiniteError:
            self._count()
            raise


@contextmanager
def _kept_open(collector: BaseCollector) -> Iterator[None]:
    """TorchRL shuts the collector down after each training; here another may follow."""
    collector.shutdown = lambda: None
    try:
        yield
    finally:
        del collector.shutdown  # the method of the class again
