"""The E-step on actions drawn from the reference policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import CompositeDistribution
from torch import Tensor, nn
from torch import distributions as d

from mpo_torchrl.distributions import (
    GaussianBase,
    action_shape,
    composite_heads,
    gaussian_base,
    is_index,
    join_heads,
)
from mpo_torchrl.dual import (
    ActionPenalty,
    ExactTemperature,
    FixedTemperature,
    ObjectiveTemperatures,
    Temperature,
)
from mpo_torchrl.errors import require_count, require_entry
from mpo_torchrl.functional import effective_sample_size, nonparametric_kl, nonparametric_weights


class SampledEStep(nn.Module):
    r"""Draws ``N`` actions per state from the reference policy and weighs them by value.

    .. math:: a_n \sim \pi_0(\cdot \mid s), \qquad
        w_n = \mathrm{softmax}_N\big(Q(s, a_n) / \eta\big)
        \;+\; \mathrm{softmax}_N\big(c(a_n) / \eta_c\big)

    The second term is there only with a ``penalty``, whose cost :math:`c` counts as a second
    objective. From `Abdolmaleki et al. (2018) <https://arxiv.org/abs/1806.06920>`_.

    A squashed policy is sampled before the squashing: that sample goes to ``"base_action"``,
    and only what the critic and the environment see, ``"action"``, is squashed.

    Of a policy with several heads, a :class:`~tensordict.nn.CompositeDistribution`, an action is
    drawn of all heads at once: ``"action"`` holds them side by side, and ``("head", name)`` each
    one's own ``"action"``, and for a Gaussian the entries named above.

    What the TensorDict already holds is kept: with values in it nothing is scored, with
    weights in it nothing is weighed. That is how an own E-step is put in front of the rest.

    Args:
        temperature (Temperature, ExactTemperature or FixedTemperature): what sets how greedy the
            weights are; called with values, and with the mask of a batch that has one.

    Keyword Args:
        num_action_samples (int): ``N``, at least 1; ``20`` by default.
        penalty (ActionPenalty, optional): the price of leaving the action space.

    Raises:
        TypeError: if ``num_action_samples`` is no whole number.
        ValueError: if it is below 1.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from mpo_torchrl.dual import Temperature
        >>> from mpo_torchrl.e_step import SampledEStep
        >>> e_step = SampledEStep(Temperature(0.1, 1.0), num_action_samples=4)
        >>> policy = torch.distributions.Normal(torch.zeros(3, 2), torch.ones(3, 2))
        >>> policy = torch.distributions.Independent(policy, 1)
        >>> improved = e_step(policy, score=lambda action: -action.square().sum(-1))
        >>> improved["action"].shape, improved["weight"].shape
        (torch.Size([3, 4, 2]), torch.Size([3, 4]))
    """

    weighs_taken = False
    """Whether it wants the batch's own actions, as ``taken``."""

    def __init__(
        self,
        temperature: Temperature | ExactTemperature | FixedTemperature | ObjectiveTemperatures,
        *,
        num_action_samples: int = 20,
        penalty: ActionPenalty | None = None,
    ) -> None:
        super().__init__()
        require_count("num_action_samples", num_action_samples)
        self.temperature = temperature
        self.penalty = penalty
        self.num_action_samples = num_action_samples

    @torch.no_grad()
    def forward(
        self,
        policy: d.Distribution | GaussianBase,
        score: Callable[[Tensor], Tensor],
        given: TensorDictBase | None = None,
        mask: Tensor | None = None,
    ) -> TensorDictBase:
        """Completes the E-step: draw, score, weigh.

        Args:
            policy (Distribution): the reference policy, batch ``[*B]``.
            score (Callable): values ``[*B, N]`` of actions ``[*B, N, A]``.
            given (TensorDictBase, optional): entries to keep, out of those below.
            mask (Tensor, optional): ``[*B]``, the states that count for the temperature.

        Returns:
            TensorDictBase: ``"action"`` ``[*B, N, A]``, ``"state_action_value"`` and
            ``"weight"`` ``[*B, N]``, ``"temperature"`` ``[*B]``, the same in all states; for a
            Gaussian ``"loc"`` and ``"scale"`` of the reference ``[*B, A]``, and if it is squashed
            ``"base_action"`` ``[*B, N, A]``.
        """
        improved = given.copy() if given is not None else TensorDict()
        base = gaussian_base(policy)
        if base is not None:
            improved.setdefault("loc", base.loc)
            improved.setdefault("scale", base.scale)
        if improved.get("action", None) is None:
            improved.update(draw_actions(policy, self.num_action_samples))
        elif not isinstance(policy, CompositeDistribution):
            _require_actions(improved, policy if base is None else base)
        # One number an action, or several where there are several objectives.
        shape = (*improved.get("action").shape[:-1], *self._value_dims())
        require_entry(improved, "state_action_value", self._value_letters, shape)
        require_entry(improved, "weight", "[*B, N]", improved.get("action").shape[:-1])
        for name, head in (composite_heads(policy) or {}).items():
            base = gaussian_base(head)
            if base is not None and improved.get(("head", name, "loc"), None) is None:
                improved.set(("head", name, "loc"), base.loc)
                improved.set(("head", name, "scale"), base.scale)
        if improved.get("state_action_value", None) is None:
            improved.set("state_action_value", score(improved.get("action")))
        if improved.get("temperature", None) is None:
            improved.set("temperature", self._find_temperature(improved, mask))
        if improved.get("weight", None) is None:
            improved.set("weight", self.weigh(improved))
        return improved

    _value_letters = "[*B, N]"

    def _value_dims(self) -> tuple[int, ...]:
        """The dimensions of a value."""
        return ()

    @torch.no_grad()
    def weigh(self, improved: TensorDictBase) -> Tensor:
        """Weights ``[*B, N]`` of the actions; they sum to 1, or to 2 with a penalty."""
        weight = self._weigh_values(improved)
        if self.penalty is not None:
            cost = self.penalty.cost(improved.get("action"))
            weight = weight + nonparametric_weights(cost, self.penalty(cost))
        return weight

    def dual_terms(self, improved: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        """The dual of the E-step ``[*B]``, whose gradient reaches temperatures, and diagnostics."""
        loss, readings = self._value_terms(improved)
        if self.penalty is not None:
            cost = self.penalty.cost(improved.get("action"))
            loss = loss + self.penalty.loss(cost)
            readings["penalty_temperature"] = self.penalty(cost).detach()
        return loss, readings

    def _value_terms(self, improved: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        q_value, temperature = improved.get("state_action_value"), improved.get("temperature")
        # What epsilon bounds follows from the values alone, without the penalty.
        weight = nonparametric_weights(q_value, temperature.unsqueeze(-1))
        readings = {
            "temperature": temperature.amax(),  # not the mean, which would round it
            "kl_e_step": nonparametric_kl(weight),
            "effective_sample_size": effective_sample_size(weight),
        }
        return self.temperature.loss(q_value), readings

    def _find_temperature(self, improved: TensorDictBase, mask: Tensor | None) -> Tensor:
        q_value = improved.get("state_action_value")
        batch = improved.get("action").shape[:-2]
        counts = () if mask is None else (over_all(mask, batch),)
        temperature = self.temperature(q_value, *counts)
        return temperature.expand((*batch, *temperature.shape))

    def _weigh_values(self, improved: TensorDictBase) -> Tensor:
        temperature = improved.get("temperature").unsqueeze(-1)
        return nonparametric_weights(improved.get("state_action_value"), temperature)


def _require_actions(improved: TensorDictBase, policy: d.Distribution | GaussianBase) -> None:
    """Raises ``ValueError`` unless given actions are ``N`` of the policy's in each state."""
    shape = policy.loc.shape if isinstance(policy, GaussianBase) else action_shape(policy)
    action = improved.get("action")
    num_samples = action.shape[-2] if action.ndim == len(shape) + 1 else "N"
    needed = (*shape[:-1], num_samples, shape[-1])
    if action.shape != needed:
        raise ValueError(
            "the E-step's entry 'action' must be [*B, N, A] = "
            f"[{', '.join(map(str, needed))}], got {list(action.shape)}."
        )
    if isinstance(policy, GaussianBase) and policy.transforms:
        require_entry(improved, "base_action", "[*B, N, A]", action.shape)


def over_all(mask: Tensor, shape: torch.Size) -> Tensor:
    """A mask over the first dimensions of ``shape``, over all of them."""
    return mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim)).expand(shape)


def draw_actions(policy: d.Distribution | GaussianBase, num_samples: int) -> dict[str, Any]:
    """Draws ``"action"`` ``[*B, N, A]``; for a squashed Gaussian ``"base_action"`` too.

    Of several heads ``"action"`` holds them side by side, and ``"head"`` the draws of each.
    """
    heads = composite_heads(policy)
    if heads is not None:
        draws = {name: _draw_head(head, num_samples) for name, head in heads.items()}
        indices = [is_index(type(head)) for head in heads.values()]
        actions = [draw["action"] for draw in draws.values()]
        return {"action": join_heads(actions, indices), "head": TensorDict(draws)}
    base = gaussian_base(policy)
    if base is None:
        return {"action": cast(d.Distribution, policy).sample((num_samples,)).movedim(0, -2)}
    noise = torch.randn(
        (num_samples, *base.loc.shape), dtype=base.loc.dtype, device=base.loc.device
    )
    sample = base.loc + base.scale * noise
    if not base.transforms:
        return {"action": sample.movedim(0, -2)}
    # The M-step fits the sample before squashing: inverting tanh would lose it at the bounds.
    return {
        "action": base.squash(sample).movedim(0, -2),
        "base_action": sample.movedim(0, -2),
    }


def _draw_head(head: d.Distribution, num_samples: int) -> dict[str, Any]:
    """Draws of one head; an index has no last dimension: ``[*B, N]``."""
    if is_index(type(head)):
        return {"action": head.sample((num_samples,)).movedim(0, -1)}
    return draw_actions(head, num_samples)
