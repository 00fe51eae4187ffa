"""What :class:`MPOTrainer` hangs into the loop of TorchRL's ``Trainer``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensordict import TensorDict, TensorDictBase
from torchrl.trainers import OptimizationStepper

from mpo_torchrl.trainer.collection import transitions
from mpo_torchrl.trainer.learning import total_loss

if TYPE_CHECKING:
    from mpo_torchrl.trainer.trainer import MPOTrainer


class UpdateStepper(OptimizationStepper):
    """One update of networks and duals, as the recipe writes it out.

    TorchRL's default stepper would add a norm over all gradients and a running mean of every
    diagnostic to each update; here the last losses are kept for whoever logs them.
    """

    losses: TensorDictBase | None = None

    def step(self, trainer: MPOTrainer, sub_batch: TensorDictBase) -> TensorDictBase:
        """Differentiate the loss of a batch and move the parameters."""
        losses = trainer.loss_module(sub_batch)
        total_loss(losses).backward()
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        self.losses = losses.detach()
        return TensorDict()


class KeepTransitions:
    """Checks a collected batch and puts what learning reads of it into the replay buffer.

    TorchRL's algorithm trainers extend the buffer at ``pre_epoch``, which the random steps at the
    start never reach: they would be played and thrown away.
    """

    def __init__(self, trainer: MPOTrainer) -> None:
        self.trainer = trainer

    def __call__(self, batch: TensorDictBase) -> TensorDictBase:
        """Keep the batch; what comes back ends where the run ends."""
        trainer = self.trainer
        data = transitions(
            batch, trainer.loss_module.in_keys, trainer.collected_frames, trainer.total_frames
        )
        trainer.replay_buffer.extend(data)
        return data


class Evaluate:
    """Every ``eval_every`` steps and at the end: an evaluation, and a row in the log."""

    def __init__(self, trainer: MPOTrainer, every: int) -> None:
        self.trainer = trainer
        self.every = every

    def __call__(self, batch: TensorDictBase) -> dict[str, Any] | None:
        """Evaluate if it is due; the mean return shows in the progress bar."""
        env_steps = self.trainer.collected_frames
        finished = env_steps >= self.trainer.total_frames
        if not (finished or env_steps % self.every < batch.numel()):
            return None
        row = self.trainer.evaluate()
        return {"log_pbar": True, "eval_return_mean": row["eval_return_mean"]}
