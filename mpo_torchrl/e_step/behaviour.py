"""The E-step on the actions of a data set."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torch import distributions as d

from mpo_torchrl.distributions import GaussianBase, gaussian_base
from mpo_torchrl.dual import ExactTemperature, FixedTemperature, Temperature
from mpo_torchrl.e_step.sampled import SampledEStep, draw_actions, over_all
from mpo_torchrl.errors import require_entry
from mpo_torchrl.functional import (
    behaviour_weights,
    effective_sample_size,
    sampled_advantage,
    vmpo_kl,
)


class BehaviourEStep(SampledEStep):
    r"""Weighs the data set's own actions by their advantage over the policy's: offline MPO.

    .. math::
        A_i &= Q(s_i, a_i) - \tfrac1N \textstyle\sum_n Q(s_i, a_n), \quad
        a_n \sim \pi_0(\cdot \mid s_i) \\
        w_i &= \min\Big(\frac{e^{A_i / \eta}}{\frac1M \sum_j e^{A_j / \eta}},\, w_{\max}\Big)

    The prior of the E-step is the behaviour policy :math:`b` that made the data,
    :math:`q(a \mid s) \propto b(a \mid s)\, e^{A(s, a) / \eta}`, and its only sample in a state is
    the action taken: the M-step fits that one, and the policy is not led where there are no data.
    With equal values it is behaviour cloning.

    The weights :math:`e^{A / \eta}`, the baseline from ``N`` actions of the policy and the clipping
    are those of critic regularized regression, `Wang et al. (2020)
    <https://arxiv.org/abs/2006.15134>`_; ``FixedTemperature(1.0)`` is their :math:`\beta = 1`. We
    depart from them in four ways:

    - Weights are relative to their mean over the ``M`` transitions of the batch, as is usual with
      AWAC, `Nair et al. (2020) <https://arxiv.org/abs/2006.09359>`_.
    - A temperature that is learned, or solved for, spends ``epsilon`` nats between :math:`q` and
      the data, before the clipping. Its dual is :func:`~mpo_torchrl.functional.temperature_loss`
      with the batch in place of the samples of a state, as V-MPO has it, `Song et al. (2019)
      <https://arxiv.org/abs/1909.12238>`_.
    - The actions of the baseline are the reference policy's, by default the target actor's.
    - The M-step keeps its trust region.

    An action is taken as it stands in the data. For a squashed policy it is brought before the
    squashing, where one on the bound lies infinitely far out: what is farther out than
    ``max_base_action`` is moved there, by default 0.25% of the range inside a bound of tanh.

    What the TensorDict already holds is kept, as with :class:`~mpo_torchrl.e_step.SampledEStep`.

    Args:
        temperature (Temperature, ExactTemperature or FixedTemperature): what sets how greedy the
            weights are.

    Keyword Args:
        num_action_samples (int): ``N``, at least 1; ``4`` by default, as in the paper.
        max_weight (float): what weights are clipped to, in multiples of their mean, at least 1;
            ``20.0`` by default.
        max_base_action (float): how far out an action lies before the squashing at most; ``3.0`` by
            default.

    Raises:
        ValueError: if an argument is out of its range.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.dual import FixedTemperature
        >>> from mpo_torchrl.e_step import BehaviourEStep
        >>> e_step = BehaviourEStep(FixedTemperature(1.0))
        >>> policy = torch.distributions.Normal(torch.zeros(2, 1), torch.full((2, 1), 0.01))
        >>> policy = torch.distributions.Independent(policy, 1)
        >>> taken = torch.tensor([[0.0], [1.0]])
        >>> improved = e_step(policy, score=lambda action: action[..., 0].square(), taken=taken)
        >>> improved["action"].shape, bool(improved["weight"][1] > improved["weight"][0])
        (torch.Size([2, 1, 1]), True)
    """

    weighs_taken = True

    def __init__(
        self,
        temperature: Temperature | ExactTemperature | FixedTemperature,
        *,
        num_action_samples: int = 4,
        max_weight: float = 20.0,
        max_base_action: float = 3.0,
    ) -> None:
        super().__init__(temperature, num_action_samples=num_action_samples)
        if not max_weight >= 1:
            raise ValueError(f"max_weight must be at least 1, got {max_weight}.")
        if not max_base_action > 0:
            raise ValueError(f"max_base_action must be positive, got {max_base_action}.")
        self.max_weight = max_weight
        self.max_base_action = max_base_action

    @torch.no_grad()
    def forward(
        self,
        policy: d.Distribution | GaussianBase,
        score: Callable[[Tensor], Tensor],
        given: TensorDictBase | None = None,
        mask: Tensor | None = None,
        taken: Tensor | None = None,
    ) -> TensorDictBase:
        """Completes the E-step: draw, score, weigh.

        Args:
            policy (Distribution): the reference policy, batch ``[*B]``.
            score (Callable): values ``[*B, N]`` of actions ``[*B, N, A]``.
            given (TensorDictBase, optional): entries to keep, out of those below.
            mask (Tensor, optional): ``[*B]``, the transitions that count.
            taken (Tensor): ``[*B, A]``, the actions of the data set.

        Returns:
            TensorDictBase: ``"action"`` ``[*B, 1, A]``, the one taken, and ``"weight"``
            ``[*B, 1]``; ``"state_action_value"`` ``[*B, 1 + N]``, that of the action taken first,
            ``"advantage"`` and ``"temperature"`` ``[*B]``; ``"loc"`` and ``"scale"`` of the
            reference ``[*B, A]``, and if it is squashed ``"base_action"`` ``[*B, 1, A]``; the
            mask, if there is one.

        Raises:
            TypeError: if there is no Gaussian at the base of the policy.
            ValueError: if the actions taken are missing or not of the policy's size.
        """
        base = _require_gaussian(policy)
        improved = given.copy() if given is not None else TensorDict()
        improved.setdefault("loc", base.loc)
        improved.setdefault("scale", base.scale)
        if improved.get("action", None) is None:
            taken = _require_taken(taken, base.loc.shape).to(base.loc.dtype)
            improved.set("action", taken.unsqueeze(-2))
        batch, size = base.loc.shape[:-1], base.loc.shape[-1]
        require_entry(improved, "action", "[*B, 1, A]", (*batch, 1, size))
        require_entry(improved, "advantage", "[*B]", batch)
        require_entry(improved, "weight", "[*B, 1]", (*batch, 1))
        if base.transforms and improved.get("base_action", None) is None:
            limit = self.max_base_action
            unsquashed = base.unsquash(improved.get("action").movedim(-2, 0)).movedim(0, -2)
            improved.set("base_action", unsquashed.clamp(-limit, limit))
        if mask is not None:
            improved.setdefault("mask", over_all(mask, base.loc.shape[:-1]))
        if improved.get("state_action_value", None) is None:
            drawn = draw_actions(base, self.num_action_samples)["action"]
            every = torch.cat([improved.get("action"), drawn], -2)  # one pass of the critics
            improved.set("state_action_value", score(every))
        if improved.get("advantage", None) is None:
            value = improved.get("state_action_value")
            improved.set("advantage", sampled_advantage(value[..., 0], value[..., 1:]))
        if improved.get("temperature", None) is None:
            temperature = self.temperature(_counted(improved))
            improved.set("temperature", temperature.expand(base.loc.shape[:-1]))
        if improved.get("weight", None) is None:
            improved.set("weight", self.weigh(improved))
        return improved

    @torch.no_grad()
    def weigh(self, improved: TensorDictBase) -> Tensor:
        """Weights ``[*B, 1]`` of the actions taken; their mean is 1 unless some are clipped."""
        weight = behaviour_weights(
            improved.get("advantage"),
            improved.get("temperature"),
            self.max_weight,
            improved.get("mask", None),
        )
        return weight.unsqueeze(-1)

    def dual_terms(self, improved: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        """The dual ``[*B]``, which is that of the whole batch in every state, and diagnostics."""
        advantage, temperature = improved.get("advantage"), improved.get("temperature")
        kl = vmpo_kl(advantage, temperature, 1.0, mask=improved.get("mask", None))
        size = effective_sample_size(improved.get("weight").flatten())
        readings = {
            "temperature": temperature.amax(),
            "kl_e_step": kl.expand(advantage.shape),
            "effective_sample_size": size.expand(advantage.shape),
        }
        loss = self.temperature.loss(_counted(improved)).squeeze(0)  # []
        return loss.expand(advantage.shape), readings


def _counted(improved: TensorDictBase) -> Tensor:
    """The advantages of the batch as those of one state with as many samples: ``[1, M]``."""
    advantage, mask = improved.get("advantage"), improved.get("mask", None)
    counted = (advantage if mask is None else advantage[mask]).reshape(1, -1)
    # Where nothing counts, one of no advantage, which asks nothing of a temperature.
    return counted if counted.numel() else counted.new_zeros(1, 1)


def _require_taken(taken: Tensor | None, shape: torch.Size) -> Tensor:
    if taken is None or taken.shape != shape:
        found = None if taken is None else list(taken.shape)
        raise ValueError(
            "BehaviourEStep weighs the actions taken, which must be [*B, A] as the policy's, "
            f"{list(shape)}, got {found}."
        )
    return taken


def _require_gaussian(policy: d.Distribution | GaussianBase) -> GaussianBase:
    base = gaussian_base(policy)
    if base is None:
        raise TypeError(
            "BehaviourEStep needs a Gaussian policy, squashed or not, got "
            f"{type(policy).__name__}: actions of the data may have no density under others."
        )
    return base
