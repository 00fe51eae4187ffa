"""Observations in units of their own spread."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torchrl.envs import EnvBase, Transform
from torchrl.objectives import LossModule

from mpo_torchrl.trainer.config import MPOConfig


def make_normalizer(env: EnvBase, loss: LossModule, config: MPOConfig) -> nn.Module:
    """What stands between observations and networks: a normalizer, or nothing at all.

    It becomes a part of the loss, as ``loss.normalizer``: whoever saves one saves the other.

    Args:
        env (EnvBase): gives the size of an observation.
        loss (LossModule): it becomes a part of it.
        config (MPOConfig): ``normalize_observation``.

    Returns:
        nn.Module: an :class:`ObservationNormalizer`, or the identity.

    Examples:
        >>> from mpo_torchrl.trainer import MPOConfig, make_loss, make_training_env
        >>> config = MPOConfig(env="Pendulum-v1", hidden=16, normalize_observation=True)
        >>> env = make_training_env(config)
        >>> _, loss = make_loss(env, config)
        >>> make_normalizer(env, loss, config)
        ObservationNormalizer()
    """
    size = env.observation_spec["observation"].shape[-1]
    normalizer = ObservationNormalizer(size) if config.normalize_observation else nn.Identity()
    loss.normalizer = normalizer.to(config.device)
    return normalizer


class ObservationNormalizer(nn.Module):
    r"""Shifts and scales observations by the mean and stddev of all that it was shown.

    .. math:: \tilde o = \mathrm{clip}\Big(\frac{o - \mu}{\max(\sigma, \sigma_{\min})}, -10, 10\Big)

    Statistics change in :meth:`update` alone: evaluation and a saved policy leave them as they
    are. Before the first observation nothing is shifted or scaled.

    Args:
        size (int): size of the observation vector.

    Keyword Args:
        min_stddev (float): least divisor, so that what hardly moves is not blown up.
        limit (float): bound on the result, in stddevs.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.trainer import ObservationNormalizer
        >>> normalizer = ObservationNormalizer(1)
        >>> normalizer.update(torch.tensor([[1.0], [5.0]]))
        >>> normalizer(torch.tensor([3.0])), normalizer(torch.tensor([5.0]))
        (tensor([0.]), tensor([1.]))
    """

    count: Tensor
    mean: Tensor
    square: Tensor
    shift: Tensor
    divisor: Tensor

    def __init__(self, size: int, *, min_stddev: float = 1e-2, limit: float = 10.0) -> None:
        super().__init__()
        self.min_stddev, self.limit = min_stddev, limit
        # Sums over millions of steps want float64; what is applied at each step is float32.
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("square", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("shift", torch.zeros(size))
        self.register_buffer("divisor", torch.ones(size))

    def forward(self, observation: Tensor) -> Tensor:
        """``[*B, O]`` in the environment's units to ``[*B, O]`` in stddevs."""
        return ((observation - self.shift) / self.divisor).clamp(-self.limit, self.limit)

    @torch.no_grad()
    def update(self, observation: Tensor) -> None:
        """Take ``[*B, O]`` into the statistics, each observation with the same weight."""
        new = observation.to(self.mean).flatten(0, -2)  # [K, O]
        if not len(new):
            return
        # Chan et al. (1979): sums of squared deviations of two sets, put together.
        delta, total = new.mean(0) - self.mean, self.count + len(new)
        self.square += (new - new.mean(0)).square().sum(0)
        self.square += delta.square() * self.count * len(new) / total
        self.mean += delta * len(new) / total
        self.count.copy_(total)
        self.shift.copy_(self.mean)
        self.divisor.copy_((self.square / total).sqrt().clamp(min=self.min_stddev))


class NormalizeReplay(Transform):
    """Learns the statistics of what enters a replay buffer, and normalizes what leaves it.

    TorchRL's ``VecNormV2`` normalizes in the environment: replay would then hold observations
    in the units of the day they were made. Here replay holds them as they are.

    Args:
        normalizer (ObservationNormalizer): the statistics, shared with the policies.
    """

    def __init__(self, normalizer: ObservationNormalizer) -> None:
        super().__init__()
        self.normalizer = normalizer

    def _inv_call(self, tensordict: TensorDictBase) -> TensorDictBase:
        self.normalizer.update(tensordict.get("observation"))
        return tensordict

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Observations and next observations in stddevs."""
        for key in ("observation", ("next", "observation")):
            tensordict.set(key, self.normalizer(tensordict.get(key)))
        return tensordict
