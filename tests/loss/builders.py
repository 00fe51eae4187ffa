"""Small networks, batches and losses for the tests of the losses.

``O`` is the size of an observation, ``A`` that of an action; ``*B`` the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase, unravel_key
from tensordict.nn import NormalParamExtractor, TensorDictModule, TensorDictSequential
from torch import Tensor, nn
from torch import distributions as d
from torchrl.data import Bounded, TensorSpec
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal, TruncatedNormal, ValueOperator

from mpo_torchrl import MPOLoss
from mpo_torchrl import modules as mpo_modules

O, A = 3, 2  # noqa: E741
SPEC = Bounded(-1.0, 1.0, shape=(A,))
POLICIES = ("gaussian", "tanh_normal", "beta", "truncated_normal")
DUALS = {
    "gaussian": ["temperature", "penalty_temperature", "alpha_mean", "alpha_stddev"],
    "tanh_normal": ["temperature", "alpha_mean", "alpha_stddev"],
    "beta": ["temperature", "alpha_policy"],
    "truncated_normal": ["temperature", "alpha_policy"],
}


class IndependentBeta(d.Independent):
    """Actions in (0, 1); its KL is known."""

    def __init__(self, concentration1: Tensor, concentration0: Tensor) -> None:
        super().__init__(d.Beta(concentration1, concentration0), 1)


class Concentrations(nn.Module):
    """Two numbers above 1 a dimension."""

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return (1.0 + nn.functional.softplus(features)).chunk(2, -1)


def make_actor(
    policy: str = "gaussian",
    *,
    observation_size: int = O,
    spec: TensorSpec = SPEC,
    in_key: NestedKey = "observation",
    out_key: NestedKey = "action",
) -> ProbabilisticActor:
    """A stochastic policy of one of the four kinds."""
    if policy in ("gaussian", "tanh_normal"):
        actor = mpo_modules.make_actor(
            observation_size, spec, num_cells=(8,), policy=policy, in_key=in_key, out_key=out_key
        )
        with torch.no_grad():  # the policy shall differ between states
            actor[0].module[0][-1].weight.mul_(100.0)
        return actor
    heads: dict[str, tuple[nn.Module, list[NestedKey], type]] = {
        "beta": (Concentrations(), ["concentration1", "concentration0"], IndependentBeta),
        "truncated_normal": (NormalParamExtractor(), ["loc", "scale"], TruncatedNormal),
    }
    head, parameters, distribution = heads[policy]
    size = spec.shape[-1]
    body = MLP(in_features=observation_size, out_features=2 * size, num_cells=[8])
    return ProbabilisticActor(
        TensorDictModule(nn.Sequential(body, head), [in_key], parameters),
        in_keys=parameters,
        out_keys=[out_key],
        spec=spec,
        distribution_class=distribution,
    )


def without_spec(actor: ProbabilisticActor, **kwargs: Any) -> ProbabilisticActor:
    """The same policy, ignorant of its action space."""
    sampling = actor[-1]
    return ProbabilisticActor(
        actor[0],
        in_keys=sampling.in_keys,
        out_keys=sampling.out_keys,
        **{"distribution_class": sampling.distribution_class, **kwargs},
    )


class ActionValue(nn.Module):
    """A critic's network, with dropout if asked."""

    def __init__(self, in_features: int, dropout: float = 0.0) -> None:
        super().__init__()
        layers = [nn.Linear(in_features, 8), nn.Tanh(), nn.Linear(8, 1)]
        if dropout:
            layers.insert(2, nn.Dropout(dropout))
        self.body = nn.Sequential(*layers)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        return self.body(torch.cat([observation, action], -1))


def make_critic(
    *,
    observation_size: int = O,
    action_size: int = A,
    dropout: float = 0.0,
    in_key: NestedKey = "observation",
    action_key: NestedKey = "action",
    out_key: NestedKey = "state_action_value",
) -> ValueOperator:
    """One critic."""
    return ValueOperator(
        ActionValue(observation_size + action_size, dropout),
        in_keys=[in_key, action_key],
        out_keys=[out_key],
    )


def make_loss(policy: str = "gaussian", **kwargs: Any) -> MPOLoss:
    """A loss with two critics drawn apart and few samples."""
    few: dict[str, Any] = {} if "e_step" in kwargs else {"num_action_samples": 5}
    return MPOLoss(make_actor(policy), [make_critic(), make_critic()], **{**few, **kwargs})


def shared_encoder_loss(
    num_critics: int, as_list: bool, **kwargs: Any
) -> tuple[MPOLoss, nn.Module]:
    """Actor and critics on one encoder, returned with the loss."""
    encoder = nn.Linear(O, 4)
    features = TensorDictModule(encoder, ["observation"], ["features"])
    head = nn.Sequential(nn.Linear(4, 2 * A), NormalParamExtractor())
    actor = ProbabilisticActor(
        TensorDictSequential(features, TensorDictModule(head, ["features"], ["loc", "scale"])),
        in_keys=["loc", "scale"],
        distribution_class=TanhNormal,
        spec=SPEC,
    )

    def critic() -> TensorDictSequential:
        value = ValueOperator(ActionValue(4 + A), in_keys=["features", "action"])
        return TensorDictSequential(features, value)

    critics = [critic() for _ in range(num_critics)] if as_list else critic()
    return MPOLoss(actor, critics, num_qvalue_nets=num_critics, **kwargs), encoder


def make_batch(
    *batch: int,
    observation_size: int = O,
    action_size: int = A,
    dtype: torch.dtype = torch.float32,
    names: dict[str, NestedKey] | None = None,
) -> TensorDict:
    """Transitions; ``names`` renames entries, at both steps where there are two."""
    names = names or {}

    def name(key: str) -> NestedKey:
        return names.get(key, key)

    def is_one_in_four() -> Tensor:
        return torch.rand(*batch, 1) < 0.25

    def states() -> Tensor:
        return torch.randn(*batch, observation_size, dtype=dtype)

    td = TensorDict(batch_size=batch)
    td.set(name("observation"), states())
    td.set(name("action"), 2 * torch.rand(*batch, action_size, dtype=dtype) - 1)
    td.set(unravel_key(("next", name("observation"))), states())
    td.set(unravel_key(("next", name("reward"))), torch.randn(*batch, 1, dtype=dtype))
    terminated = is_one_in_four()
    td.set(unravel_key(("next", name("terminated"))), terminated)
    td.set(unravel_key(("next", name("done"))), terminated | is_one_in_four())
    return td


def total(losses: TensorDictBase) -> Tensor:
    """What a trainer trains on."""
    return sum(value.sum() for key, value in losses.items() if key.startswith("loss"))


def loss_entries(losses: TensorDictBase) -> dict[str, Tensor]:
    """The losses without the diagnostics."""
    return {key: losses[key] for key in losses.keys() if key.startswith("loss")}


def parameter_groups(loss: MPOLoss) -> dict[str, list[Tensor]]:
    """The parameters of the loss by what they belong to."""
    groups: dict[str, list[Tensor]] = {}
    for name, parameter in loss.named_parameters():
        groups.setdefault(name.split(".")[0].removesuffix("_network_params"), []).append(parameter)
    return groups


def trained_groups(loss: MPOLoss, value: Tensor) -> set[str]:
    """The groups of parameters that a loss sends a gradient other than zero."""
    groups = parameter_groups(loss)
    parameters = [p for group in groups.values() for p in group]
    gradients = torch.autograd.grad(value.sum(), parameters, retain_graph=True, allow_unused=True)
    received = {
        id(p) for p, g in zip(parameters, gradients, strict=True) if g is not None and g.any()
    }
    return {name for name, group in groups.items() if any(id(p) in received for p in group)}


def seeded(call: Any, *args: Any, seed: int = 1) -> Any:
    """Calls with the random numbers of one seed, to compare two calls."""
    torch.manual_seed(seed)
    return call(*args)


def snapshot(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Copies, to see later what moved."""
    return [parameter.detach().clone() for parameter in parameters]


@torch.no_grad()
def move_policy(loss: MPOLoss, distance: float = 0.1) -> MPOLoss:
    """Moves the policy away from its target, so that their KLs are not zero."""
    for parameter in loss.actor_network_params.parameters():
        parameter.add_(distance * torch.randn_like(parameter))
    return loss
