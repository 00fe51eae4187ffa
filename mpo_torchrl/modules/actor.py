"""Gaussian policies, squashed or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from tensordict import NestedKey
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.data import TensorSpec
from torchrl.envs.utils import ExplorationType
from torchrl.modules import IndependentNormal, ProbabilisticActor, TanhNormal

from mpo_torchrl.modules.bounds import action_range
from mpo_torchrl.modules.mlp import PolicyNetwork, make_mlp

PolicyKind = Literal["gaussian", "tanh_normal"]


class GaussianHead(nn.Module):
    r"""Turns the last layer of a network into mean and stddev of a Gaussian.

    .. math:: \mu = m + h\,x_\mu, \qquad
        \sigma = h\,\big(\mathrm{softplus}(x_\sigma + b) + \sigma_{\min}\big)

    or, with a greatest stddev,

    .. math:: \sigma = h\,\big(\sigma_{\min}
        + (\sigma_{\max} - \sigma_{\min})\,\mathrm{sigmoid}(x_\sigma + b)\big),

    with :math:`b` such that an output of zero gives ``init_stddev``.

    Args:
        middle (Tensor): ``[A]``, :math:`m`, where the mean is at an output of zero.
        half_range (Tensor): ``[A]``, :math:`h`, the action's unit for the network.

    Keyword Args:
        init_stddev (float): stddev at an output of zero, as a fraction of ``half_range``.
        min_stddev (float): least stddev :math:`\sigma_{\min}`, as a fraction of ``half_range``.
        max_stddev (float, optional): greatest stddev :math:`\sigma_{\max}`, as a fraction of
            ``half_range``; ``None`` for no limit. Where the environment clips, all samples beyond
            a bound are as good as each other, and nothing else keeps the stddev from growing.

    Raises:
        ValueError: unless ``0 < min_stddev < init_stddev < max_stddev``.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.modules import GaussianHead
        >>> head = GaussianHead(torch.zeros(1), 2 * torch.ones(1), init_stddev=0.5)
        >>> head(torch.zeros(1, 2))
        (tensor([[0.]]), tensor([[1.]]))
    """

    middle: Tensor
    half_range: Tensor

    def __init__(
        self,
        middle: Tensor,
        half_range: Tensor,
        *,
        init_stddev: float = 0.5,
        min_stddev: float = 0.01,
        max_stddev: float | None = None,
    ) -> None:
        super().__init__()
        if not init_stddev > min_stddev > 0:
            raise ValueError(
                "init_stddev must be above min_stddev and min_stddev above 0, got "
                f"{init_stddev} and {min_stddev}."
            )
        if max_stddev is not None and not max_stddev > init_stddev:
            raise ValueError(
                f"max_stddev must be above init_stddev, got {max_stddev} and {init_stddev}."
            )
        self.min_stddev, self.max_stddev = min_stddev, max_stddev
        above_least = init_stddev - min_stddev
        if max_stddev is None:
            self.bias = math.log(math.expm1(above_least))
        else:
            self.bias = math.log(above_least / (max_stddev - init_stddev))
        self.register_buffer("middle", middle)
        self.register_buffer("half_range", half_range)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and stddev, ``[*B, A]`` each, from ``[*B, 2 A]``."""
        loc, scale = features.chunk(2, -1)
        scale = scale + self.bias
        if self.max_stddev is None:
            stddev = nn.functional.softplus(scale) + self.min_stddev
        else:
            span = self.max_stddev - self.min_stddev
            stddev = self.min_stddev + span * torch.sigmoid(scale)
        return self.middle + self.half_range * loc, self.half_range * stddev


def make_actor(
    observation_size: int,
    action_spec: TensorSpec,
    *,
    num_cells: Sequence[int] = (256, 256),
    policy: PolicyKind = "gaussian",
    init_stddev: float = 0.5,
    min_stddev: float = 0.01,
    max_stddev: float | None = None,
    layer_norm: bool = True,
    in_key: NestedKey = "observation",
    out_key: NestedKey = "action",
) -> ProbabilisticActor:
    """A policy network that begins in the middle of the action space.

    Args:
        observation_size (int): size of the observation vector.
        action_spec (TensorSpec): the action's spec, ``[A]``; its bounds set the scale.

    Keyword Args:
        num_cells (sequence of int): width of each hidden layer.
        policy (str): ``"gaussian"``, unsquashed, whose actions the environment clips, or
            ``"tanh_normal"``, squashed into the bounds.
        init_stddev (float): stddev at the start, as a fraction of half the action's range (for
            ``"tanh_normal"``: before the squashing).
        min_stddev (float): least stddev, in the same unit.
        max_stddev (float, optional): greatest stddev, in the same unit; ``None`` for no limit.
        layer_norm (bool): see :func:`~mpo_torchrl.modules.make_mlp`.
        in_key (NestedKey): where the observation is.
        out_key (NestedKey): where the action goes.

    Returns:
        ProbabilisticActor: samples when exploring, takes the mean when deterministic.

    Raises:
        ValueError: if the kind of policy is unknown, or a squashed one has no bounds.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl.data import Bounded
        >>> from mpo_torchrl.modules import make_actor
        >>> actor = make_actor(3, Bounded(-2.0, 2.0, shape=(1,)))
        >>> actor(TensorDict(observation=torch.zeros(5, 3), batch_size=5))["action"].shape
        torch.Size([5, 1])
    """
    middle, half_range, bounded = action_range(action_spec)
    size = len(middle)
    if policy == "gaussian":
        distribution, limits = IndependentNormal, {}
        unit = middle, half_range
    elif policy == "tanh_normal":
        if not bounded:
            raise ValueError(
                "policy='tanh_normal' squashes into the action bounds and this action space has "
                "none; use policy='gaussian'."
            )
        distribution = TanhNormal
        limits = {"low": middle - half_range, "high": middle + half_range}
        unit = torch.zeros(size), torch.ones(size)
    else:
        raise ValueError(f"policy must be 'gaussian' or 'tanh_normal', got {policy!r}.")

    head = GaussianHead(
        *unit, init_stddev=init_stddev, min_stddev=min_stddev, max_stddev=max_stddev
    )
    body = make_mlp(observation_size, 2 * size, num_cells, layer_norm=layer_norm)
    network = TensorDictModule(PolicyNetwork(body, head), [in_key], ["loc", "scale"])
    return ProbabilisticActor(
        network,
        in_keys=["loc", "scale"],
        out_keys=[out_key],
        spec=action_spec,
        distribution_class=distribution,
        distribution_kwargs=limits,
        default_interaction_type=ExplorationType.RANDOM,
    )
