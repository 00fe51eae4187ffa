"""The actor at work: observation in, action out."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn
from torchrl.data import Bounded
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import IndependentNormal, ProbabilisticActor


class SamplingPolicy(TensorDictModuleBase):
    """Acts with a sample of the actor's distribution, to collect data.

    The same action as the actor's own when it explores, draw for draw, without what costs time
    and is not kept: the log-probability, the parameters of the distribution, and for a Gaussian
    the distribution itself. It shares its parameters with the actor.

    Args:
        actor (ProbabilisticActor): from :func:`~mpo_torchrl.modules.make_actor`.
        normalizer (nn.Module, optional): what observations pass first.

    Examples:
        >>> from mpo_torchrl.modules import make_actor
        >>> policy = SamplingPolicy(make_actor(3, Bounded(-2.0, 2.0, (1,))))
        >>> policy(TensorDict(observation=torch.zeros(5, 3), batch_size=5))["action"].shape
        torch.Size([5, 1])
    """

    in_keys = ["observation"]
    out_keys = ["action"]

    def __init__(self, actor: ProbabilisticActor, normalizer: nn.Module | None = None) -> None:
        super().__init__()
        self.network, self.sampling = actor[0].module, actor[-1]
        self.normalizer = normalizer or nn.Identity()

    @torch.no_grad()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The TensorDict with ``action`` added."""
        parameters = self.network(self.normalizer(tensordict.get("observation")))
        if self.sampling.distribution_class is IndependentNormal:
            loc, scale = parameters
            action = loc + torch.randn_like(loc) * scale
        else:
            given = dict(zip(self.sampling.dist_keys, _several(parameters), strict=True))
            kwargs = self.sampling.distribution_kwargs
            action = self.sampling.distribution_class(**given, **kwargs).sample()
        return tensordict.set("action", action)


class MeanPolicy(TensorDictModuleBase):
    """Acts with the mean of the actor's distribution, inside the bounds of the action space.

    With discrete actions, with the likeliest.

    It shares its parameters with the actor it is made from. Call it with a TensorDict that holds
    ``observation``, as an environment's rollout does, or with the observation itself.

    Args:
        actor (ProbabilisticActor): reads ``observation``, writes ``action``.
        normalizer (nn.Module, optional): what observations pass first.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from mpo_torchrl.modules import make_actor
        >>> policy = MeanPolicy(make_actor(3, Bounded(-2.0, 2.0, (1,))))
        >>> policy(torch.zeros(5, 3)).shape
        torch.Size([5, 1])
    """

    in_keys = ["observation"]
    out_keys = ["action"]

    def __init__(self, actor: ProbabilisticActor, normalizer: nn.Module | None = None) -> None:
        super().__init__()
        self.actor = actor
        self.normalizer = normalizer or nn.Identity()

    @torch.no_grad()
    def forward(self, observation: Any) -> Any:
        """The action for an observation (tensor or array), or a TensorDict with it added."""
        if isinstance(observation, TensorDictBase):
            action = self._act(observation.get("observation"))
            return observation.set("action", action.to(observation.get("observation").device))
        observation = torch.as_tensor(observation, dtype=torch.float32)
        return self._act(observation).to(observation.device)

    def _act(self, observation: Tensor) -> Tensor:
        device = next(self.actor.parameters()).device
        observation = self.normalizer(observation.to(device))
        state = TensorDict(observation=observation, batch_size=observation.shape[:-1])
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            action = self.actor(state).get("action")
        spec = self.actor.spec["action"]
        return action.clamp(spec.low, spec.high) if isinstance(spec, Bounded) else action


def _several(parameters: Any) -> tuple[Tensor, ...]:
    return (parameters,) if isinstance(parameters, Tensor) else tuple(parameters)
