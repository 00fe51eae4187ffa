"""The actor as a function of its parameters."""

from __future__ import annotations

from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential
from torch import Tensor
from torch import distributions as d

from mpo_torchrl.distributions import GaussianBase
from mpo_torchrl.stateless import ParameterSets, StatelessNetwork


class Policy:
    """Evaluates the actor under given parameters.

    Where one network is followed by a distribution that is a Gaussian or a fixed bijection of
    one, neither the TensorDict nor the distribution is built: mean and stddev are what the
    network returns.

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
        self.in_keys = list(actor_network.in_keys)
        self._transforms = transforms or ()
        self._network: StatelessNetwork | None = None
        modules = list(actor_network.module)
        if transforms is not None and len(modules) == 2:
            network, sampling = modules
            returns_parameters = list(network.out_keys) == list(sampling.in_keys)
            if returns_parameters and StatelessNetwork.supports(network):
                self._network = StatelessNetwork(network, "module.0.")

    def __call__(
        self, states: TensorDictBase, params: ParameterSets
    ) -> tuple[d.Distribution | GaussianBase, TensorDictBase]:
        """The policy in each state, and the states with what the actor wrote into them.

        Args:
            states (TensorDictBase): with the actor's ``in_keys``; left unchanged.
            params (ParameterSets): one set of parameters.
        """
        if self._network is not None and not self._network.is_hooked:
            (member,) = params.members()
            inputs: tuple[Tensor, ...] = tuple(states.get(key) for key in self.in_keys)
            loc, scale = self._network(member, inputs)
            return GaussianBase(loc, scale, self._transforms), states
        states = states.copy()
        with params.params.to_module(self.actor_network, preserve_module_state=False):
            return self.actor_network.get_dist(states), states
