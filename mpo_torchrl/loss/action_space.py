"""What a loss must know of the actions before the first batch: their size, bounds, law."""

from __future__ import annotations

import torch
from tensordict import NestedKey, TensorDict
from torch import Tensor, nn
from torch import distributions as d
from torchrl.data import Bounded, Composite, TensorSpec
from torchrl.modules import IndependentNormal, TanhNormal

from mpo_torchrl.distributions import GaussianBase, gaussian_base
from mpo_torchrl.loss.networks import sampling_module


def known_spec(actor_network: nn.Module, action_spec: TensorSpec | None) -> TensorSpec | None:
    """The action's spec as it was given, else the actor's own, if it has one.

    Raises:
        TypeError: if what was given is no spec.
    """
    if action_spec is not None and not isinstance(action_spec, TensorSpec):
        raise TypeError(
            "action_spec must be a spec of torchrl.data such as env.action_spec, got "
            f"{type(action_spec).__name__}."
        )
    return action_spec if action_spec is not None else getattr(actor_network, "spec", None)


class ActionSpace:
    """The action space of a stochastic actor.

    Args:
        actor_network (nn.Module): the actor.
        action_key (NestedKey): where it writes its action.
        action_spec (TensorSpec, optional): the action's spec; by default the actor's.

    Raises:
        ValueError: if the actions are not real numbers, or nothing tells their size.
    """

    def __init__(
        self, actor_network: nn.Module, action_key: NestedKey, action_spec: TensorSpec | None
    ) -> None:
        spec = known_spec(actor_network, action_spec)
        if isinstance(spec, Composite):
            spec = spec.get(action_key, None)
        if spec is not None:
            _require_real_numbers(spec, action_key)
        self._spec = spec
        self._sampling = sampling_module(actor_network)
        self.size = self._find_size()
        device = next((p.device for p in actor_network.parameters()), None)
        self._probe = self._probe_distribution(device)

    @property
    def may_leave(self) -> bool:
        """Whether the policy may draw actions outside their bounds: an unsquashed Gaussian."""
        return self.gaussian is not None and not self.gaussian.transforms

    @property
    def gaussian(self) -> GaussianBase | None:
        """The Gaussian at the base of the policy, with arbitrary numbers in it."""
        return gaussian_base(self._probe) if self._probe is not None else None

    def fixed_transforms(self) -> tuple[d.Transform, ...] | None:
        """The bijection behind the Gaussian, if the actor's mean and stddev go straight into it.

        ``None`` for a distribution that is not known to keep them (``tanh_loc`` does not) or
        whose bijection may depend on them.
        """
        kind = self._sampling.distribution_class
        keys = list(self._sampling.dist_keys)
        if kind not in (IndependentNormal, TanhNormal) or keys != ["loc", "scale"]:
            return None
        base = self.gaussian
        if base is None or not bool(base.loc.eq(1).all() and base.scale.eq(1).all()):
            return None
        return base.transforms

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds ``[A]``, infinite where there are none."""
        infinite = torch.full((self.size,), torch.inf)
        if not isinstance(self._spec, Bounded):
            return -infinite, infinite
        bounds = self._spec.space.low, self._spec.space.high
        low, high = (bound.reshape(-1, self.size) for bound in bounds)
        if not bool((low == low[0]).all() and (high == high[0]).all()):
            raise ValueError(
                "all agents must have the same bounds on their actions for an action penalty, got "
                f"low {low.tolist()} and high {high.tolist()}; pass epsilon_penalty=None, or "
                "squash the policy."
            )
        return low[0], high[0]

    def _find_size(self) -> int:
        if self._spec is not None:
            return int(self._spec.shape[-1])
        for name in ("low", "high"):
            limit = self._sampling.distribution_kwargs.get(name)
            if isinstance(limit, Tensor) and limit.ndim:
                return int(limit.shape[-1])
        raise ValueError(
            "the size of an action is not known: pass action_spec=env.action_spec to the loss, "
            "or build the actor with spec=env.action_spec."
        )

    def _probe_distribution(self, device: torch.device | None) -> d.Distribution | None:
        """A policy whose parameters are all ones, made without running the network."""
        ones = {key: torch.ones(1, self.size, device=device) for key in self._sampling.in_keys}
        try:
            probe = self._sampling.get_dist(TensorDict(ones, [1]))
        except (ValueError, RuntimeError, TypeError, KeyError, AttributeError):
            return None  # ones are no parameters of this distribution, e.g. a covariance
        if probe.has_enumerate_support:
            raise ValueError(
                "the loss needs a continuous action space, got a policy of the discrete "
                f"distribution {type(probe).__name__}; for one discrete choice take "
                "DiscreteMPOLoss, or VMPOLoss on-policy."
            )
        return probe


def _require_real_numbers(spec: TensorSpec, action_key: NestedKey) -> None:
    if isinstance(spec, Composite):
        raise ValueError(
            f"a policy of one head has one action of real numbers, the action under "
            f"{action_key!r} is composed of {sorted(map(str, spec.keys()))}; several heads are a "
            "CompositeDistribution."
        )
    if spec.domain == "discrete" or not spec.dtype.is_floating_point:
        raise ValueError(
            "the loss needs a continuous action space, a box of real numbers, got the discrete "
            f"{type(spec).__name__} under {action_key!r}; for one discrete choice take "
            "DiscreteMPOLoss, or VMPOLoss on-policy."
        )
    if not spec.shape:
        raise ValueError(
            f"the action under {action_key!r} needs a last dimension for its numbers, [A], got "
            "a spec of shape []."
        )
