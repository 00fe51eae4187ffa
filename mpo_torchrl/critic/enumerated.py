"""A critic that values every action of a discrete space at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import NestedKey
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from mpo_torchrl.critic.ensemble import output_of
from mpo_torchrl.critic.scalar import LossFunction, ScalarCritic
from mpo_torchrl.stateless import ParameterSets


class EnumeratedCritic(ScalarCritic):
    r"""An ensemble of networks with an output for each action.

    .. math:: \ell = \sum_{c=1}^C d\big(Q_c(s)_a,\; y\big), \qquad V_a = \min_c Q_c(s)_a

    Args:
        network (TensorDictModuleBase or sequence of them): reads the observation, writes the
            value of each action ``[*B, A]``. A sequence is an ensemble.

    Keyword Args:
        loss_function (str): ``"l2"`` (default), ``"l1"`` or ``"smooth_l1"``.
        value_key (NestedKey): where the network writes; ``"action_value"`` by default.

    Raises:
        TypeError: if a network is not a TensorDict module.
        ValueError: if the loss function is unknown or there is no network.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from tensordict.nn import TensorDictModule
        >>> from mpo_torchrl.critic import EnumeratedCritic
        >>> network = TensorDictModule(torch.nn.Linear(3, 2), ["observation"], ["action_value"])
        >>> critic = EnumeratedCritic(network)
        >>> critic.predict(TensorDict(observation=torch.zeros(5, 3), batch_size=5)).shape
        torch.Size([1, 5, 2])
    """

    def __init__(
        self,
        network: TensorDictModuleBase | Sequence[TensorDictModuleBase],
        *,
        loss_function: LossFunction = "l2",
        value_key: NestedKey = "action_value",
    ) -> None:
        super().__init__(network, loss_function=loss_function, value_key=value_key)

    def predict(
        self,
        inputs: Any,
        params: ParameterSets | None = None,
        batch_size: torch.Size | None = None,
        *,
        hidden_dtype: torch.dtype | None = None,
        vmap_randomness: str | None = None,
    ) -> Tensor:
        """What each network says of each action: ``[C, *B, A]``; arguments as ScalarCritic's."""
        batch_size = inputs.batch_size if batch_size is None else batch_size
        if params is None:
            written = (network(inputs.copy()) for network in self.networks)
            value = torch.stack([output_of(tensordict, self.value_key) for tensordict in written])
        else:
            value = self.ensemble(
                inputs,
                params,
                self.value_key,
                batch_size,
                hidden_dtype=hidden_dtype,
                vmap_randomness=vmap_randomness,
            )
        if value.shape[1:-1] != batch_size:
            raise ValueError(
                f"the critic must write {self.value_key!r} as [*B, A], the value of each action, "
                f"with *B = {list(batch_size)}, got {list(value.shape[1:])}."
            )
        return value
