"""What :class:`MPOTrainer` hangs into the loop of TorchRL's ``Trainer``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensordict import TensorDict, TensorDictBase
from torchrl.trainers import OptimizationStepper

from mpo_torchrl.trainer.collection import transitions
from mpo_torchrl.trainer.learning import total_loss
from mpo_torchrl.trainer.policy_delay import UpdateLoss
from mpo_torchrl.trainer.results import due

if TYPE_CHECKING:
    from mpo_torchrl.trainer.trainer import MPOTrainer


class UpdateStepper(OptimizationStepper):
    """One update of networks and duals, as the recipe writes it out.

    TorchRL's default stepper would add a norm over all gradients and a running mean of every
    diagnostic to each update; here the last losses are kept for whoever logs them.
    """

    losses: TensorDictBase | None = None

    def __init__(self, loss: UpdateLoss) -> None:
        self.loss = loss

    def step(self, trainer: MPOTrainer, sub_batch: TensorDictBase) -> TensorDictBase:
        """Differentiate the loss of a batch and move the parameters."""
        losses = self.loss(sub_batch)
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
    """Every ``every`` steps and at the end: an evaluation, and a row in the log."""

    def __init__(self, trainer: MPOTrainer, every: int) -> None:
        self.trainer = trainer
        self.every = every

    def __call__(self, batch: TensorDictBase) -> dict[str, Any] | None:
        """Evaluate if it is due; the mean return shows in the progress bar."""
        trainer = self.trainer
        if not (trainer.finished or due(self.every, trainer.collected_frames, batch)):
            return None
        row = trainer.evaluate()
        return {"log_pbar": True, "eval_return_mean": row["eval_return_mean"]}


class SaveState:
    """Every ``every`` steps and at the end: the state from which the run continues."""

    def __init__(self, trainer: MPOTrainer, every: int) -> None:
        self.trainer = trainer
        self.every = every

    def __call__(self, batch: TensorDictBase) -> None:
        """Save if it is due and the run has a folder."""
        trainer = self.trainer
        if trainer.states is None:
            return
        if trainer.finished or due(self.every, trainer.collected_frames, batch):
            trainer.states.save()
