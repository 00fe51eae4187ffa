"""A trained policy for use: observation in, best action out."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import ProbabilisticActor


class MeanPolicy(TensorDictModuleBase):
    """Acts with the mean of the actor's distribution, inside the bounds of the action space.

    It shares its parameters with the actor it is made from. Call it with a TensorDict that holds
    ``observation``, as an environment's rollout does, or with the observation itself.

    Args:
        actor (ProbabilisticActor): reads ``observation``, writes ``action``.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from mpo_torchrl.modules import make_actor
        >>> policy = MeanPolicy(make_actor(3, Bounded(-2.0, 2.0, (1,))))
        >>> policy(torch.zeros(5, 3)).shape
        torch.Size([5, 1])
    """

    in_keys = ["observation"]
    out_keys = ["action"]

    def __init__(self, actor: ProbabilisticActor) -> None:
        super().__init__()
        self.actor = actor

    @torch.no_grad()
    def forward(self, observation: Any) -> Any:
        """The action for an observation (tensor or array), or a TensorDict with it added."""
        if isinstance(observation, TensorDictBase):
            return observation.set("action", self._act(observation.get("observation")))
        return self._act(torch.as_tensor(observation, dtype=torch.float32))

    def _act(self, observation: Tensor) -> Tensor:
        device = next(self.actor.parameters()).device
        state = TensorDict(observation=observation.to(device), batch_size=observation.shape[:-1])
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            action = self.actor(state).get("action")
        spec = self.actor.spec["action"]
        return action.clamp(spec.low, spec.high).to(observation.device)
