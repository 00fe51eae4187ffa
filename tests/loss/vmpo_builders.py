"""Small policies, value networks and on-policy batches for the tests of VMPOLoss."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import NormalParamExtractor, TensorDictModule, TensorDictSequential
from torch import Tensor, nn
from torchrl.data import Categorical, OneHot, TensorSpec
from torchrl.modules import ProbabilisticActor, TanhNormal, ValueOperator

from mpo_torchrl import VMPOLoss
from mpo_torchrl.modules import make_discrete_actor, make_value_network
from tests.loss import builders
from tests.loss.builders import SPEC, A, O

CHOICES = 3
SPECS: dict[str, TensorSpec] = {"one_hot": OneHot(CHOICES), "index": Categorical(CHOICES)}
POLICIES = ("gaussian", "tanh_normal", "one_hot", "index", "beta", "truncated_normal")
GAUSSIANS = ("gaussian", "tanh_normal")


def alphas(policy: str) -> list[str]:
    """The names of the KL multipliers of a policy."""
    return ["alpha_mean", "alpha_stddev"] if policy in GAUSSIANS else ["alpha_policy"]


def make_actor(policy: str, **kwargs: NestedKey) -> ProbabilisticActor:
    """A stochastic policy of one of the kinds."""
    if policy not in SPECS:
        return builders.make_actor(policy, **kwargs)
    actor = make_discrete_actor(O, SPECS[policy], num_cells=(8,), **kwargs)
    with torch.no_grad():  # the policy shall differ between states
        actor[0].module[0][-1].weight.mul_(100.0)
    return actor


def make_loss(policy: str = "gaussian", **settings: Any) -> VMPOLoss:
    """A loss of small networks."""
    return VMPOLoss(make_actor(policy), make_value_network(O, num_cells=(8,)), **settings)


def draw_action(policy: str, *batch: int) -> Tensor:
    """Actions that the policy might have taken."""
    spec = SPECS.get(policy, SPEC)
    return spec.rand(batch) * (0.9 if policy not in SPECS else 1)


def make_batch(policy: str, *batch: int, advantage: bool = True, **kwargs: Any) -> TensorDict:
    """Steps, with advantages and value targets unless the loss shall compute them."""
    td = builders.make_batch(*batch, **kwargs)
    key = (kwargs.get("names") or {}).get("action", "action")
    action = draw_action(policy, *batch)
    td[key] = action.to(td["next"].get("reward", action).dtype) if policy not in SPECS else action
    if policy == "beta":
        td[key] = td[key].abs()
    if advantage:
        td["advantage"], td["value_target"] = torch.randn(2, *batch, 1)
    return td


def shared_encoder_loss(**settings: Any) -> tuple[VMPOLoss, nn.Module]:
    """Actor and critic on one encoder, returned with the loss."""
    encoder = nn.Linear(O, 4)
    features = TensorDictModule(encoder, ["observation"], ["features"])
    head = nn.Sequential(nn.Linear(4, 2 * A), NormalParamExtractor())
    actor = ProbabilisticActor(
        TensorDictSequential(features, TensorDictModule(head, ["features"], ["loc", "scale"])),
        in_keys=["loc", "scale"],
        distribution_class=TanhNormal,
        spec=SPEC,
    )
    value = ValueOperator(nn.Linear(4, 1), in_keys=["features"])
    return VMPOLoss(actor, TensorDictSequential(features, value), **settings), encoder


def losses_of(output: TensorDictBase) -> dict[str, Tensor]:
    """The losses without the diagnostics."""
    return builders.loss_entries(output)
