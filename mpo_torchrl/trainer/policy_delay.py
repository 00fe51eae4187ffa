"""Updates of the critics alone, between those of all parts."""

from __future__ import annotations

from collections.abc import Callable

from tensordict import TensorDict, TensorDictBase

from mpo_torchrl.loss.improvement import ImprovementLoss

UpdateLoss = Callable[[TensorDictBase], TensorDictBase]


class CriticLoss:
    """Part 1 of a loss alone, in the form of the whole loss.

    A critic's update does without the scored samples of the E-step, most of what an update costs.

    Args:
        loss (ImprovementLoss): the loss; it goes on owning every parameter.

    Examples:
        >>> from mpo_torchrl.trainer import MPOConfig, make_loss, make_training_env
        >>> env = make_training_env(MPOConfig(env="Pendulum-v1", hidden=16))
        >>> _, loss = make_loss(env, MPOConfig(env="Pendulum-v1", hidden=16))
        >>> sorted(CriticLoss(loss)(env.rollout(3)).keys())
        ['loss_qvalue']
    """

    def __init__(self, loss: ImprovementLoss) -> None:
        self.loss = loss

    def __call__(self, batch: TensorDictBase) -> TensorDictBase:
        """``"loss_qvalue"`` of a batch; no other part gets a gradient from it."""
        loss_qvalue, _ = self.loss.qvalue_loss(batch)
        return TensorDict(loss_qvalue=loss_qvalue)


class DelayedPolicy:
    """Every ``policy_delay``-th call gives the losses of all parts, the others the critics' alone.

    So the critics learn from more batches than the policy does (Fujimoto et al., 2018,
    arXiv:1802.09477).

    Args:
        whole (UpdateLoss): the losses of all parts.
        critics (UpdateLoss): that of the critics.
        policy_delay (int): calls for one of ``whole``; the last of them is the one.

    Examples:
        >>> losses = DelayedPolicy(lambda batch: "all", lambda batch: "critics", policy_delay=3)
        >>> [losses(None) for _ in range(4)]
        ['critics', 'critics', 'all', 'critics']
    """

    def __init__(self, whole: UpdateLoss, critics: UpdateLoss, policy_delay: int) -> None:
        self.whole, self.critics = whole, critics
        self.policy_delay = policy_delay
        self._calls = 0

    def __call__(self, batch: TensorDictBase) -> TensorDictBase:
        """The losses of this update, from a batch of transitions."""
        self._calls += 1
        return self.critics(batch) if self._calls % self.policy_delay else self.whole(batch)
