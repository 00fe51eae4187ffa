"""The M-step of a policy with several heads."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torch import distributions as d

from mpo_torchrl.distributions import composite_heads
from mpo_torchrl.m_step.distribution import DistributionMStep
from mpo_torchrl.m_step.fit import Fit
from mpo_torchrl.m_step.gaussian import GaussianMStep


class CompositeMStep(nn.Module):
    r"""Fits each head of a policy to the weighted actions, under bounds of its own.

    .. math:: -\sum_{n=1}^N w_n \sum_h \log \pi_\theta^h(a_n^h \mid s), \qquad
        \mathrm{KL}(\pi_0^h \Vert \pi_\theta^h) \le \epsilon^h

    Heads are independent given the state, so that the likelihood of an action is the product of
    theirs and its KL the sum. The weights belong to the action as a whole: a head learns what is
    good together with what the others did. From `Neunert et al. (2020)
    <https://arxiv.org/abs/2001.00449>`_, hybrid MPO, which bounds continuous and discrete parts of
    an action apart.

    Args:
        heads (mapping): an M-step for each head by its name.

    Raises:
        ValueError: at the first call, if the policy has other heads.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from tensordict.nn import CompositeDistribution
        >>> from mpo_torchrl.dual import KLMultiplier
        >>> from mpo_torchrl.m_step import CompositeMStep, DistributionMStep
        >>> params = TensorDict(gear=TensorDict(logits=torch.zeros(5, 3)), batch_size=5)
        >>> policy = CompositeDistribution(params, {"gear": torch.distributions.Categorical})
        >>> improved = TensorDict(weight=torch.full((5, 4), 0.25))
        >>> improved["head", "gear", "action"] = torch.zeros(5, 4)
        >>> m_step = CompositeMStep({"gear": DistributionMStep(KLMultiplier(0.01, 1.0))})
        >>> m_step(improved, policy, policy).kl["gear_policy"]
        tensor([0., 0., 0., 0., 0.])
    """

    def __init__(self, heads: Mapping[str, GaussianMStep | DistributionMStep]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(heads)
        self.multipliers = nn.ModuleDict(
            {
                f"{name}_{constraint}": multiplier
                for name, head in heads.items()
                for constraint, multiplier in head.multipliers.items()
            }
        )
        own = [(name, reading) for name, head in heads.items() for reading in head.readings]
        others = [f"{reading}_{name}" for name, reading in own if reading != "entropy"]
        self.readings = ("entropy", *others)

    def forward(
        self,
        improved: TensorDictBase,
        policy: d.Distribution,
        reference: d.Distribution,
    ) -> Fit:
        """Compares the online policy with the result of the E-step.

        Args:
            improved (TensorDictBase): ``"weight"`` ``[*B, N]``, and under ``("head", name)`` what
                the M-step of that head reads.
            policy (Distribution): the online policy, composite, batch ``[*B]``.
            reference (Distribution): the policy that drew the actions, composite, batch ``[*B]``.

        Returns:
            Fit: with the constraints ``"<head>_mean"`` and ``"<head>_stddev"`` of Gaussian heads,
            ``"<head>_policy"`` of others. The entropy is that of all heads.
        """
        heads, references = composite_heads(policy), composite_heads(reference)
        if heads is None or references is None or set(heads) != set(self.heads):
            found = list(heads) if heads is not None else type(policy).__name__
            raise ValueError(
                f"CompositeMStep fits the heads {list(self.heads)} of a composite policy and its "
                f"reference, got {found}."
            )
        fits = {
            name: m_step(_of_head(improved, name), heads[name], references[name])
            for name, m_step in self.heads.items()
        }
        kl = {f"{name}_{c}": kl for name, fit in fits.items() for c, kl in fit.kl.items()}
        readings: dict[str, Tensor] = {
            f"{reading}_{name}": value
            for name, fit in fits.items()
            for reading, value in fit.readings.items()
            if reading != "entropy"
        }
        readings["entropy"] = torch.stack([f.readings["entropy"] for f in fits.values()]).sum(0)
        return Fit(torch.stack([fit.nll for fit in fits.values()]).sum(0), kl, readings)


def _of_head(improved: TensorDictBase, name: str) -> TensorDictBase:
    head = improved.get(("head", name), None)
    if head is None or head.get("action", None) is None:
        raise ValueError(
            f"the M-step of the head {name!r} fits its own actions; put them under "
            f"('head', {name!r}, 'action') beside 'action'."
        )
    return TensorDict(dict(head.items())).set("weight", improved.get("weight"))
