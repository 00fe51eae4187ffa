"""A loss whose policies, actions and values are exactly those of a reference case."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.data import Bounded
from torchrl.modules import IndependentNormal, ProbabilisticActor

from mpo_torchrl import MPOLoss


class FixedGaussian(nn.Module):
    """Mean and stddev are parameters, a row for each state of the batch."""

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.loc = nn.Parameter(loc.clone())
        self.scale = nn.Parameter(scale.clone())

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        return self.loc, self.scale


class LinearCritic(nn.Module):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, dtype=torch.float64)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        return self.linear(torch.cat([observation, action], -1))


def make_loss(
    loc: Tensor,
    scale: Tensor,
    *,
    loss_class: type[MPOLoss] = MPOLoss,
    num_outputs: int = 1,
    **settings,
) -> tuple[MPOLoss, FixedGaussian]:
    """A loss in float64 for the policy (loc, scale), and that policy's parameters."""
    size = loc.shape[-1]
    network = FixedGaussian(loc, scale)
    actor = ProbabilisticActor(
        TensorDictModule(network, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        spec=Bounded(-1.0, 1.0, shape=(size,)),
        distribution_class=IndependentNormal,
    )
    critic = TensorDictModule(
        LinearCritic(1 + size, num_outputs), ["observation", "action"], ["state_action_value"]
    )
    return loss_class(actor, critic, **settings), network


def make_batch(like: Tensor, /, *, num_rewards: int = 1, **e_step: Tensor) -> TensorDict:
    """Transitions whose E-step is given."""
    batch = like.shape[:-1]
    observation = torch.zeros(*batch, 1, dtype=like.dtype)
    done = torch.zeros(*batch, 1, dtype=torch.bool)
    following = {
        "observation": observation,
        "reward": torch.ones(*batch, num_rewards, dtype=like.dtype),
        "done": done,
        "terminated": done,
    }
    entries = {"observation": observation, "action": torch.zeros_like(like)}
    return TensorDict(
        {
            **entries,
            "next": TensorDict(following, batch),
            "e_step": TensorDict(e_step, batch),
        },
        batch,
    )
