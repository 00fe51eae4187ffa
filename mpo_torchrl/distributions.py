"""What MPO needs to know of a policy's distribution: is there a Gaussian at its base?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from tensordict import NestedKey
from tensordict.nn import CompositeDistribution
from torch import Tensor
from torch import distributions as d
from torchrl.modules import MaskedCategorical, MaskedOneHotCategorical, OneHotCategorical


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


def composite_heads(dist: Any) -> dict[str, d.Distribution] | None:
    """The heads of a composite distribution by name; ``None`` if it is another one."""
    if not isinstance(dist, CompositeDistribution):
        return None
    return {head_name(key): head for key, head in dist.dists.items()}


def head_name(key: NestedKey) -> str:
    """What a head is called that writes its action under ``key``."""
    return key if isinstance(key, str) else "_".join(key)


def is_index(kind: type) -> bool:
    """Whether actions of a distribution are indices of choices, without a last dimension."""
    one_hot = (OneHotCategorical, MaskedOneHotCategorical)
    return issubclass(kind, d.Categorical) and not issubclass(kind, one_hot)


def join_heads(actions: Iterable[Tensor], indices: Iterable[bool]) -> Tensor:
    """Actions of several heads side by side: ``[*B, A_h]`` or, of indices, ``[*B]`` to ``[*B, A]``.

    Args:
        actions (iterable of Tensor): one a head.
        indices (iterable of bool): which of them lack a last dimension.
    """
    columns = [
        action.unsqueeze(-1) if index else action
        for action, index in zip(actions, indices, strict=True)
    ]
    real = [column.dtype for column in columns if column.is_floating_point()]
    dtype = real[0] if real else torch.get_default_dtype()
    return torch.cat([column.to(dtype) for column in columns], -1)


def log_prob(dist: d.Distribution, action: Tensor) -> Tensor:
    """Log-probabilities of actions with sample dimensions before those of the distribution.

    TorchRL's masked distributions know the probability of one action alone.
    """
    if not isinstance(dist, (MaskedCategorical, MaskedOneHotCategorical)):
        return dist.log_prob(action)
    one_hot = isinstance(dist, MaskedOneHotCategorical)
    index = action.argmax(-1, keepdim=True) if one_hot else action.long().unsqueeze(-1)
    logits = dist.logits.log_softmax(-1)
    return logits.expand(*index.shape[:-1], logits.shape[-1]).gather(-1, index).squeeze(-1)


def per_state(values: Tensor, batch_dims: int) -> Tensor:
    """Sums what a distribution without event dimensions returns for each action dimension."""
    return values.flatten(batch_dims).sum(-1) if values.ndim > batch_dims else values


def action_shape(dist: d.Distribution) -> torch.Size:
    """The shape of one action in each state of the batch."""
    shape = dist.batch_shape + dist.event_shape
    if isinstance(dist, (OneHotCategorical, MaskedOneHotCategorical)):
        # TorchRL's inherit from a distribution over indices.
        shape += dist.logits.shape[-1:]
    return shape
