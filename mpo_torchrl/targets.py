"""Target networks moved in one call.

Both updaters copy the buffers of the networks, such as running means, as they are; those of TorchRL
pass over them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchrl.objectives import LossModule, SoftUpdate
from torchrl.objectives.utils import TargetNetUpdater


class FusedSoftUpdate(SoftUpdate):
    r"""TorchRL's :class:`~torchrl.objectives.SoftUpdate` for all targets at once.

    .. math:: \bar\theta \leftarrow \bar\theta + \tau\,(\theta - \bar\theta)

    Make it when the loss is on its device: what networks share is tied anew there. The same
    numbers; where SoftUpdate looks up and moves one tensor after the other, this
    moves them all in one fused operation, which for small networks costs a tenth.

    Args:
        loss_module (LossModule): the loss whose targets follow its networks.

    Keyword Args:
        eps (float): share of the target that stays, ``1 - tau``.
        tau (float): share of the network that comes in. Exactly one of the two is given.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from mpo_torchrl import MPOLoss
        >>> from mpo_torchrl.modules import make_actor, make_critics
        >>> from mpo_torchrl.targets import FusedSoftUpdate
        >>> spec = Bounded(-1.0, 1.0, shape=(1,))
        >>> loss = MPOLoss(make_actor(3, spec), make_critics(3, spec))
        >>> FusedSoftUpdate(loss, tau=0.005).step()
    """

    def step(self) -> None:
        """Moves every target by ``tau`` towards its network."""
        if self._moved is None:
            self._moved, self._copied = _targets_and_sources(self), _targets_and_buffers(self)
        with torch.no_grad():
            torch._foreach_lerp_(*self._moved, 1 - self.eps)
            _copy(*self._copied)

    def state_dict(self) -> dict[str, int]:
        """Nothing: the targets are part of the loss."""
        return {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Nothing to take over."""

    # The tensors themselves, looked up once: all are only ever changed in place.
    _moved: tuple[list[Tensor], list[Tensor]] | None = None
    _copied: tuple[list[Tensor], list[Tensor]] = ([], [])


class PeriodicUpdate(TargetNetUpdater):
    """Copies the networks into their targets at every ``period``-th call.

    TorchRL's :class:`~torchrl.objectives.HardUpdate` with an interval of ``k`` copies at the
    calls ``k + 1``, ``2 k + 2``, ..., and what it counted is in no ``state_dict``.

    Args:
        loss_module (LossModule): the loss whose targets follow its networks.

    Keyword Args:
        period (int): calls of :meth:`step` from one copy to the next, at least 1.

    Raises:
        ValueError: if ``period`` is below 1.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from mpo_torchrl import MPOLoss
        >>> from mpo_torchrl.modules import make_actor, make_critics
        >>> from mpo_torchrl.targets import PeriodicUpdate
        >>> spec = Bounded(-1.0, 1.0, shape=(1,))
        >>> loss = MPOLoss(make_actor(3, spec), make_critics(3, spec))
        >>> PeriodicUpdate(loss, period=100).step()
    """

    def __init__(self, loss_module: LossModule, *, period: int) -> None:
        if period < 1:
            raise ValueError(f"period must be at least 1, got {period}.")
        super().__init__(loss_module)
        self.period, self.calls = period, 0

    def step(self) -> None:
        """Copies if it is due."""
        self.calls += 1
        if self.calls % self.period == 0:
            with torch.no_grad():
                _copy(*_targets_and_sources(self))
                _copy(*_targets_and_buffers(self))

    def state_dict(self) -> dict[str, int]:
        """The calls so far."""
        return {"calls": self.calls}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Goes on counting from there."""
        self.calls = state_dict["calls"]


def _targets_and_sources(updater: TargetNetUpdater) -> tuple[list[Tensor], list[Tensor]]:
    for name in updater._target_names:
        getattr(updater.loss_module, name)  # TorchRL fills in targets of lazy layers here
    keys = list(updater._sources.keys(include_nested=True, leaves_only=True))
    targets = [updater._targets.get((f"target_{key[0]}", *key[1:])) for key in keys]
    return targets, [updater._sources.get(key) for key in keys]


def _targets_and_buffers(updater: TargetNetUpdater) -> tuple[list[Tensor], list[Tensor]]:
    """What is no parameter in the targets, and where it comes from."""
    targets, buffers = [], []
    for name, target_name in zip(updater._source_names, updater._target_names, strict=True):
        target = getattr(updater.loss_module, target_name)
        for key, value in getattr(updater.loss_module, name).items(True, True):
            if not isinstance(value, nn.Parameter) and not value.requires_grad:
                targets.append(target.get(key))
                buffers.append(value)
    return targets, buffers


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    if targets:  # torch has no empty lists here
        torch._foreach_copy_(targets, sources)
