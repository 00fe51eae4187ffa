"""What MPO needs to know of a policy's distribution: is there a Gaussian at its base?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch import distributions as d
from torchrl.modules import MaskedOneHotCategorical, OneHotCategorical


class GaussianBase(NamedTuple):
    """A diagonal Gaussian and the bijection that turns its samples into actions."""

    loc: Tensor  # [*B, A]
    scale: Tensor  # [*B, A]
    transforms: tuple[d.Transform, ...]  # applied in order; empty if unsquashed

    def squash(self, sample: Tensor) -> Tensor:
        """Maps samples of the Gaussian, sample dimension first, to actions."""
        for transform in self.transforms:
            sample = transform(sample)
        return sample

    def unsquash(self, action: Tensor) -> Tensor:
        """The samples that are squashed to these actions, sample dimension first."""
        for transform in reversed(self.transforms):
            action = transform.inv(action)
        return action


def gaussian_base(dist: d.Distribution | GaussianBase) -> GaussianBase | None:
    """Finds the diagonal Gaussian under ``dist``; ``None`` if there is none.

    Looks through :class:`~torch.distributions.Independent` and transformed distributions,
    hence through :class:`~torchrl.modules.IndependentNormal` and
    :class:`~torchrl.modules.TanhNormal`. Mean and stddev are read from the distribution
    itself, since it may have changed what the network gave it (``tanh_loc``).
    """
    if isinstance(dist, GaussianBase):
        return dist
    transforms: list[d.Transform] = []
    while not isinstance(dist, d.Normal):
        if isinstance(dist, d.TransformedDistribution):
            transforms = [*dist.transforms, *transforms]
        elif not isinstance(dist, d.Independent):
            return None
        dist = dist.base_dist
    return GaussianBase(dist.loc, dist.scale, tuple(transforms))


def categorical_logits(dist: d.Distribution) -> Tensor | None:
    """The logits ``[*B, A]`` of a distribution over ``A`` choices; ``None`` if it is another one.

    One-hot, masked and ordinal ones of TorchRL are categorical, too.
    """
    return dist.logits if isinstance(dist, (d.Categorical, d.OneHotCategorical)) else None


def action_shape(dist: d.Distribution) -> torch.Size:
    """The shape of one action in each state of the batch."""
    shape = dist.batch_shape + dist.event_shape
    if isinstance(dist, (OneHotCategorical, MaskedOneHotCategorical)):
        # TorchRL's inherit from a distribution over indices.
        shape += dist.logits.shape[-1:]
    return shape
