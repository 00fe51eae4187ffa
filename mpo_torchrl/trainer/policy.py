"""The actor at work: observation in, action out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn
from torchrl.data import Bounded, TensorSpec
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


class SequencePolicy(TensorDictModuleBase):
    """Acts with a sample of the actor's distribution, and keeps what sequences are learned from.

    That is the log-probability with which the action was taken: of the actor's distribution, or
    at first, while actions are uniformly random, of the uniform one; and what a recurrent actor
    remembers, also then. It shares its parameters with the actor.

    Args:
        actor (ProbabilisticActor): reads ``observation``, writes ``action``.
        normalizer (nn.Module, optional): what observations pass first.

    Keyword Args:
        random_steps (int): steps at the start that are uniformly random, in whole batches.
    """

    taken: Tensor

    def __init__(
        self,
        actor: ProbabilisticActor,
        normalizer: nn.Module | None = None,
        *,
        random_steps: int = 0,
    ) -> None:
        super().__init__()
        self.in_keys = list(actor.in_keys)
        self.state_keys = _state_keys(actor)
        self.out_keys = ["action", "action_log_prob", *[("next", key) for key in self.state_keys]]
        self.actor, self.normalizer = actor, normalizer or nn.Identity()
        self.random_steps = random_steps
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The TensorDict with ``action`` and ``action_log_prob`` added."""
        states = tensordict.select(*self.in_keys)
        states.set("observation", self.normalizer(states.get("observation")))
        policy = self.actor.get_dist(states)
        if self.taken < self.random_steps:
            action, log_prob = _uniform(self.actor.spec["action"], tensordict.batch_size)
        else:
            action = policy.sample()
            log_prob = policy.log_prob(action)
        self.taken += tensordict.numel()
        tensordict.update({"action": action, "action_log_prob": log_prob})
        return _carry_on(tensordict, states, self.state_keys)


def _state_keys(actor: ProbabilisticActor) -> list[NestedKey]:
    """Where the states are that a recurrent actor carries from step to step."""
    return [key[1] for key in actor.out_keys if isinstance(key, tuple) and key[0] == "next"]


def _carry_on(
    tensordict: TensorDictBase, states: TensorDictBase, keys: Sequence[NestedKey]
) -> TensorDictBase:
    """The TensorDict with what a recurrent actor remembers after the step."""
    for key in keys:
        tensordict.set(("next", key), states.get(("next", key)).to(tensordict.get(key).device))
    return tensordict


def _uniform(spec: TensorSpec, batch_size: torch.Size) -> tuple[Tensor, Tensor]:
    """Uniformly random actions, and the logarithm of their density or probability ``[*B]``."""
    if isinstance(spec, Bounded):
        log_prob = -(spec.space.high - spec.space.low).log().sum()
    else:
        log_prob = -torch.tensor(float(spec.space.n)).log()
    return spec.rand(batch_size), log_prob.expand(batch_size)


class MeanPolicy(TensorDictModuleBase):
    """Acts with the mean of the actor's distribution, inside the bounds of the action space.

    With discrete actions, with the likeliest.

    It shares its parameters with the actor it is made from. Call it with a TensorDict that holds
    ``observation``, as an environment's rollout does, or with the observation itself. A recurrent
    policy needs the TensorDict of an environment, which carries what it remembers.

    Args:
        actor (ProbabilisticActor): reads ``observation``, writes ``action``.
        normalizer (nn.Module, optional): what observations pass first.

    Examples:
        >>> from torchrl.data import Bounded, TensorSpec
        >>> from mpo_torchrl.modules import make_actor
        >>> policy = MeanPolicy(make_actor(3, Bounded(-2.0, 2.0, (1,))))
        >>> policy(torch.zeros(5, 3)).shape
        torch.Size([5, 1])
    """

    def __init__(self, actor: ProbabilisticActor, normalizer: nn.Module | None = None) -> None:
        super().__init__()
        self.actor = actor
        self.normalizer = normalizer or nn.Identity()
        self.in_keys = list(actor.in_keys)
        self.state_keys = _state_keys(actor)
        self.out_keys = ["action", *[("next", key) for key in self.state_keys]]

    @torch.no_grad()
    def forward(self, observation: Any) -> Any:
        """The action for an observation (tensor or array), or a TensorDict with it added."""
        if isinstance(observation, TensorDictBase):
            state = self._act(observation.select(*self.in_keys))
            device = observation.get("observation").device
            observation.set("action", state.get("action").to(device))
            return _carry_on(observation, state, self.state_keys)
        if self.state_keys:
            raise TypeError(
                "a recurrent policy needs the TensorDict of an environment, with "
                f"{self.in_keys}, got {type(observation).__name__}."
            )
        observation = torch.as_tensor(observation, dtype=torch.float32)
        state = TensorDict(observation=observation, batch_size=observation.shape[:-1])
        return self._act(state).get("action").to(observation.device)

    def _act(self, state: TensorDictBase) -> TensorDictBase:
        state = state.to(next(self.actor.parameters()).device)
        state.set("observation", self.normalizer(state.get("observation")))
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            state = self.actor(state)
        spec = self.actor.spec["action"]
        if isinstance(spec, Bounded):
            state.set("action", state.get("action").clamp(spec.low, spec.high))
        return state


def _several(parameters: Any) -> tuple[Tensor, ...]:
    return (parameters,) if isinstance(parameters, Tensor) else tuple(parameters)
