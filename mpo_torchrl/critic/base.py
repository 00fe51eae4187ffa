"""What every critic part has: an ensemble of networks, and what their outputs mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torchrl.objectives.value import ValueEstimatorBase

from mpo_torchrl.critic.ensemble import Ensemble, output_of
from mpo_torchrl.stateless import ParameterSets


class Critic(nn.Module, ABC):
    r"""An ensemble of ``C`` action-value networks with ``K`` outputs each, and what they mean.

    .. math:: V = \min_c \operatorname{E}[Z_c], \qquad
        \mathrm{target} = \mathrm{encode}\big(r + \gamma V(s')\big)

    A part says how outputs are read (:meth:`mean`), what a return looks like as a target
    (:meth:`encode`, :meth:`decode`) and how far predictions are from one (:meth:`loss`). All
    else follows, the target included, unless the part bootstraps from whole distributions. The
    minimum over the ensemble is that of `Fujimoto et al. (2018)
    <https://arxiv.org/abs/1802.09477>`_.

    Args:
        network (TensorDictModuleBase or sequence of them): reads the observation and the
            action, writes ``[*B, K]``. A sequence is an ensemble.
        num_outputs (int, optional): ``K``, if the part knows it.

    Keyword Args:
        value_key (NestedKey): where the network writes; ``"state_action_value"`` by default.

    Raises:
        TypeError: if a network is not a TensorDict module.
        ValueError: if networks are missing, the same or not built alike.

    Examples:
        A critic whose network predicts a shrunk value:

        >>> from mpo_torchrl.critic import ScalarCritic
        >>> from mpo_torchrl.functional import signed_hyperbolic, signed_parabolic
        >>> class ShrunkCritic(ScalarCritic):
        ...     def mean(self, prediction):
        ...         return signed_parabolic(prediction)
        ...     def encode(self, value_target):
        ...         return signed_hyperbolic(value_target.squeeze(-1))
        ...     def decode(self, target):
        ...         return signed_parabolic(target)
    """

    num_objectives = 1
    """How many rewards there are, each with a value of its own."""

    reads_action = True
    """Whether the networks read the action, or else value every one at once."""

    def __init__(
        self,
        network: TensorDictModuleBase | Sequence[TensorDictModuleBase],
        num_outputs: int | None,
        *,
        value_key: NestedKey = "state_action_value",
    ) -> None:
        super().__init__()
        networks: list[Any] = list(network) if isinstance(network, (list, tuple)) else [network]
        if not networks:
            raise ValueError("a critic needs at least one network, got an empty list.")
        for member in networks:
            if not isinstance(member, TensorDictModuleBase):
                raise TypeError(
                    "a critic's network must be a TensorDict module such as torchrl's "
                    f"ValueOperator, got {type(member).__name__}."
                )
        if len({id(member) for member in networks}) < len(networks):
            raise ValueError(
                "a list of critics holds the same network more than once; for several of one kind "
                "give the network alone and num_qvalue_nets."
            )
        for member in networks[1:]:
            if _structure(member) != _structure(networks[0]):
                raise ValueError(
                    "the critics of a list must be built alike, since one network computes them "
                    "all with the parameters of each; these differ in their keys or layers."
                )
        self.networks = nn.ModuleList(networks)
        self.is_list = isinstance(network, (list, tuple))
        self.ensemble = Ensemble(networks[0])
        self.num_outputs = num_outputs
        self.value_key = value_key

    @property
    def in_keys(self) -> list[NestedKey]:
        """What the networks read."""
        return list(self.ensemble.in_keys)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Writes ``loss_qvalue`` and ``td_error``, each ``[*B]``, from ``value_target``."""
        prediction = self.predict(tensordict)
        target = self.encode(tensordict.get("value_target"))
        tensordict.set("loss_qvalue", self.loss(prediction, target))
        tensordict.set("td_error", self.td_error(prediction, target))
        return tensordict

    def predict(
        self,
        inputs: Any,
        params: ParameterSets | TensorDictBase | None = None,
        batch_size: torch.Size | None = None,
        *,
        recalled: Sequence[TensorDictBase] = (),
        hidden_dtype: torch.dtype | None = None,
        vmap_randomness: str | None = None,
    ) -> Tensor:
        """What each network says: ``[C, *B, K]``, or ``[C, *B]`` where one number is the value.

        Args:
            inputs (TensorDictBase or dict): with the observation and the action.
            params (ParameterSets or TensorDictBase, optional): parameters to use in place of
                the networks' own.
            batch_size (torch.Size, optional): ``*B``; by default that of the TensorDict.

        Keyword Args:
            recalled (sequence of TensorDictBase): what recurrent networks remember in each
                state, from ``critic.ensemble.recall``; with ``params``.
            hidden_dtype (torch.dtype, optional): precision of all layers but the last.
            vmap_randomness (str, optional): see :class:`~mpo_torchrl.critic.ensemble.Ensemble`,
                as is ``hidden_dtype``; both only with ``params``.

        Raises:
            KeyError: if the network does not write the value's key.
            ValueError: if what it writes is not ``[*B, K]``.
        """
        batch_size = inputs.batch_size if batch_size is None else batch_size
        if params is None:
            written = (network(inputs.copy()) for network in self.networks)
            output = torch.stack([output_of(tensordict, self.value_key) for tensordict in written])
        else:
            if isinstance(params, TensorDictBase):
                params = ParameterSets(params)
            output = self.ensemble(
                inputs,
                params,
                self.value_key,
                batch_size,
                recalled=recalled,
                hidden_dtype=hidden_dtype,
                vmap_randomness=vmap_randomness,
            )
        if output.shape[1:-1] != batch_size or self.num_outputs not in (None, output.shape[-1]):
            size = self.num_outputs or "K"
            expected = ", ".join(str(length) for length in (*batch_size, size))
            raise ValueError(
                f"the critic must write {self.value_key!r} as [*B, {size}] = [{expected}], got "
                f"{list(output.shape[1:])}; {self._outputs_needed()}."
            )
        return output

    @abstractmethod
    def _outputs_needed(self) -> str:
        """How many outputs a network has, and why, for an error."""

    @abstractmethod
    def mean(self, prediction: Tensor) -> Tensor:
        """The expected return of each prediction: ``[..., K]`` to ``[...]``, unit of return."""

    @abstractmethod
    def encode(self, value_target: Tensor) -> Tensor:
        """A return ``[*B, 1]`` as what :meth:`loss` compares predictions with."""

    @abstractmethod
    def decode(self, target: Tensor) -> Tensor:
        """The expected return of a target: ``[*B]``, unit of return."""

    @abstractmethod
    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Distance to the target, summed over the ensemble: ``[*B]``; no target is trained."""

    def value(self, prediction: Tensor) -> Tensor:
        """The pessimistic value: ``[C, *B, ...]`` to ``[*B]``, unit of return."""
        return self.mean(prediction).amin(0)

    def td_error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Largest absolute error of the ensemble's means, the priority in replay: ``[*B]``."""
        error = self.mean(prediction.detach()) - self.decode(target.detach())
        return error.abs().amax(0)

    def target(
        self, tensordict: TensorDictBase, prediction: Tensor, estimator: ValueEstimatorBase
    ) -> Tensor:
        """What :meth:`loss` takes, from rewards and what follows: ``[*B, ...]``.

        Args:
            tensordict (TensorDictBase): ``[*B]`` transitions.
            prediction (Tensor): ``[C, *B, M, ...]``, at ``M`` actions in the next state.
            estimator (ValueEstimatorBase): how rewards and next values become a target.
        """
        next_value = self.value(prediction).mean(-1, keepdim=True)  # [*B, 1]
        return self.encode(estimator.value_estimate(tensordict, next_value=next_value))

    def require_estimator(self, estimator: ValueEstimatorBase) -> None:
        """Raises ``ValueError`` if :meth:`target` cannot be made with this estimator."""


def _structure(network: Any) -> tuple[Any, ...]:
    """What networks have in common that differ only in the numbers of their parameters."""
    shapes = {
        name: None if nn.parameter.is_lazy(parameter) else parameter.shape
        for name, parameter in network.named_parameters()
    }
    # A parametrized layer is of a class of its own.
    layers = [parametrize.type_before_parametrizations(module) for module in network.modules()]
    return list(network.in_keys), list(network.out_keys), layers, shapes
