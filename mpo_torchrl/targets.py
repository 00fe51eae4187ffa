"""Target networks moved in one call."""

from __future__ import annotations

import torch
from torch import Tensor
from torchrl.objectives import SoftUpdate


class FusedSoftUpdate(SoftUpdate):
    r"""TorchRL's :class:`~torchrl.objectives.SoftUpdate` for all targets at once.

    .. math:: \bar\theta \leftarrow \bar\theta + \tau\,(\theta - \bar\theta)

    The same numbers; where SoftUpdate looks up and moves one tensor after the other, this
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
            for name in self._target_names:
                getattr(self.loss_module, name)  # TorchRL fills in targets of lazy layers here
            keys = list(self._sources.keys(include_nested=True, leaves_only=True))
            targets = [self._targets.get((f"target_{key[0]}", *key[1:])) for key in keys]
            self._moved = targets, [self._sources.get(key) for key in keys]
        targets, sources = self._moved
        with torch.no_grad():
            torch._foreach_lerp_(targets, sources, 1 - self.eps)

    # The tensors themselves, looked up once: both are only ever changed in place.
    _moved: tuple[list[Tensor], list[Tensor]] | None = None
