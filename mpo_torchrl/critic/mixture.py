"""Mixture of Gaussians: returns as a smooth density."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from tensordict import NestedKey
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torch.nn.functional import softplus

from mpo_torchrl.critic.distributional import DistributionalCritic
from mpo_torchrl.errors import require_count
from mpo_torchrl.functional import mixture_nll, mixture_sample


class MixtureCritic(DistributionalCritic):
    r"""An ensemble of critics that predict a mixture of ``K`` Gaussians.

    .. math:: \ell = -\sum_{c=1}^C \tfrac1S \sum_{s=1}^S
        \log \sum_k p_{c,k}\, \mathcal N(y_s; \mu_{c,k}, \sigma_{c,k}), \qquad
        y_s = r + \gamma z_s, \quad z_s \sim Z(s', a')

    the cross-entropy to the target, from samples of it. The critic of Acme's MoG-MPO, with its
    five components and 128 samples for each bootstrap action (`Hoffman et al. (2020)
    <https://arxiv.org/abs/2006.00979>`_). No range of returns has to be known.

    Args:
        network (TensorDictModuleBase or sequence of them): reads the observation and the
            action, writes ``[*B, 3 K]``: logits, means, and scales before the softplus. A
            sequence is an ensemble.

    Keyword Args:
        num_components (int): ``K``, at least 1; ``5`` by default.
        num_samples (int): ``S``, of the target for each bootstrap action, at least 1; ``128`` by
            default.
        init_scale (float): stddev of a component whose output is 0, unit of return. Best of the
            size of the returns: with one far below, as Acme's 1e-3 is for long returns, means
            are learnt many times slower. ``100.0`` by default.
        min_scale (float): least stddev of a component, unit of return. ``1e-4`` by default.
        value_key (NestedKey): where the network writes; ``"state_action_value"`` by default.

    Raises:
        TypeError: if a network is not a TensorDict module, or a count no whole number.
        ValueError: if networks are missing, the same or not built alike or an argument is out of
            its range.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from mpo_torchrl import MPOLoss
        >>> from mpo_torchrl.critic import MixtureCritic
        >>> from mpo_torchrl.modules import make_actor, make_critics
        >>> spec = Bounded(-2.0, 2.0, shape=(1,))
        >>> critic = MixtureCritic(make_critics(3, spec, num_outputs=3 * 5), num_components=5)
        >>> loss = MPOLoss(make_actor(3, spec), critic)
    """

    def __init__(
        self,
        network: TensorDictModuleBase | Sequence[TensorDictModuleBase],
        *,
        num_components: int = 5,
        num_samples: int = 128,
        init_scale: float = 100.0,
        min_scale: float = 1e-4,
        value_key: NestedKey = "state_action_value",
    ) -> None:
        require_count("num_components", num_components)
        require_count("num_samples", num_samples)
        for name, scale in (("init_scale", init_scale), ("min_scale", min_scale)):
            if not scale > 0:
                raise ValueError(f"{name} must be > 0, got {scale}.")
        super().__init__(network, 3 * num_components, value_key=value_key)
        self.num_components = num_components
        self.num_samples = num_samples
        self.init_scale = init_scale
        self.min_scale = min_scale

    def _outputs_needed(self) -> str:
        return (
            f"a critic of {self.num_components} components ends in a layer with three outputs "
            "for each: logit, mean and scale"
        )

    def _components(self, prediction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[..., 3 K]`` to logits, means and stddevs, each ``[..., K]``."""
        logits, loc, raw_scale = prediction.chunk(3, -1)
        scale = softplus(raw_scale) * (self.init_scale / math.log(2.0)) + self.min_scale
        return logits, loc, scale

    def mean(self, prediction: Tensor) -> Tensor:
        """``[..., 3 K]`` outputs to ``[...]``, unit of return."""
        logits, loc, _ = prediction.chunk(3, -1)
        return (logits.softmax(-1) * loc).sum(-1)

    def encode(self, value_target: Tensor) -> Tensor:
        """A return is the one sample of a target: ``[*B, 1]``."""
        return value_target

    def decode(self, target: Tensor) -> Tensor:
        """``[*B, S]`` samples to ``[*B]``, unit of return."""
        return target.mean(-1)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Cross-entropies summed over the ensemble: ``[C, *B, 3 K]``, ``[*B, S]`` to ``[*B]``."""
        nll = mixture_nll(target.detach(), *self._components(prediction))  # [C, *B, S]
        return nll.mean(-1).sum(0)

    @torch.no_grad()
    def backup(self, following: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
        """``[*B, M, 3 K]`` outputs, ``[*B, 1]``, ``[*B, 1]`` to samples ``[*B, M S]``."""
        sample = mixture_sample(*self._components(following), num_samples=self.num_samples)
        return reward + discount * sample.flatten(-2)
