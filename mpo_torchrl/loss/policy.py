"""The actor as a function of its parameters."""

from __future__ import annotations

from tensordict import NestedKey, TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential
from torch import Tensor
from torch import distributions as d

from mpo_torchrl.distributions import GaussianBase, per_state
from mpo_torchrl.memory import Memory, split
from mpo_torchrl.stateless import ParameterSets, StatelessNetwork


class Policy:
    """Evaluates the actor under given parameters.

    Where one network is followed by a distribution that is a Gaussian or a fixed bijection of
    one, neither the TensorDict nor the distribution is built: mean and stddev are what the
    network returns.

    A recurrent actor runs over the sequence that a state stands in, and what follows its last
    recurrent module is then evaluated in every state as if nothing were recurrent.

    Args:
        actor_network (ProbabilisticTensorDictSequential): the actor.
        transforms (tuple of Transform, optional): the fixed bijection behind a Gaussian whose
            mean and stddev are all that is asked for; ``None`` to be given the distribution.
    """

    def __init__(
        self,
        actor_network: ProbabilisticTensorDictSequential,
        transforms: tuple[d.Transform, ...] | None,
    ) -> None:
        self.actor_network = actor_network
        torso, head = split(actor_network)
        self.memory = Memory([part.module for part in torso], stored=True) if torso else None
        self._head = (
            ProbabilisticTensorDictSequential(*[part.module for part in head])
            if torso
            else actor_network
        )
        self.in_keys = list(self._head.in_keys)
        self._transforms = transforms or ()
        self._network: StatelessNetwork | None = None
        modules = list(self._head.module)
        if transforms is not None and len(modules) == 2:
            network, sampling = modules
            returns_parameters = list(network.out_keys) == list(sampling.in_keys)
            if returns_parameters and StatelessNetwork.supports(network):
                prefix = head[0].prefix if torso else "module.0."
                self._network = StatelessNetwork(network, prefix)

    def __call__(
        self, states: TensorDictBase, params: ParameterSets
    ) -> tuple[d.Distribution | GaussianBase, TensorDictBase]:
        """The policy in each state, and the states with what the actor wrote into them.

        Args:
            states (TensorDictBase): with the actor's ``in_keys``; left unchanged.
            params (ParameterSets): one set of parameters.
        """
        states = self._recall(states, params)
        if self._network is not None and not self._network.is_hooked:
            (member,) = params.members()
            inputs: tuple[Tensor, ...] = tuple(states.get(key) for key in self.in_keys)
            loc, scale = self._network(member, inputs)
            return GaussianBase(loc, scale, self._transforms), states
        return self._distribution(states, params)

    def log_prob(self, states: TensorDictBase, action: Tensor, params: ParameterSets) -> Tensor:
        """Log-probability ``[*B]`` of an action in each state, ``[*B, A]``."""
        policy, _ = self._distribution(self._recall(states, params), params)
        return per_state(policy.log_prob(action), action.ndim - 1)

    def _distribution(
        self, states: TensorDictBase, params: ParameterSets
    ) -> tuple[d.Distribution, TensorDictBase]:
        states = states.copy()
        with params.params.to_module(self.actor_network, preserve_module_state=False):
            return self._head.get_dist(states), states

    def _recall(self, states: TensorDictBase, params: ParameterSets) -> TensorDictBase:
        """The states, with what a recurrent actor remembers in each."""
        if self.memory is None:
            return states
        with params.params.to_module(self.actor_network, preserve_module_state=False):
            return states.copy().update(self.memory(states, params.role))

    def burn_in(self, past: TensorDictBase, params: ParameterSets) -> dict[NestedKey, Tensor]:
        """What a recurrent actor remembers after the steps of ``past``."""
        if self.memory is None:
            return {}
        with params.params.to_module(self.actor_network, preserve_module_state=False):
            return self.memory.burn_in(past)
