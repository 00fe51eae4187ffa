"""A critic that predicts one number: the expected return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn
from torchrl.objectives.utils import distance_loss

from mpo_torchrl.critic.ensemble import Ensemble, output_of
from mpo_torchrl.stateless import ParameterSets

LossFunction = Literal["l2", "l1", "smooth_l1"]


class ScalarCritic(nn.Module):
    r"""An ensemble of action-value networks, trained on temporal differences.

    .. math:: \ell = \sum_{c=1}^C d\big(Q_c(s, a),\; y\big), \qquad
        V = \min_c Q_c

    with :math:`y` the target and :math:`d` the squared error (``"l2"``), the absolute error
    (``"l1"``) or the Huber loss (``"smooth_l1"``). The minimum over the ensemble is that of
    `Fujimoto et al. (2018) <https://arxiv.org/abs/1802.09477>`_.

    Args:
        network (TensorDictModuleBase or sequence of them): reads the observation and the
            action, writes the action's value ``[*B, 1]``. A sequence is an ensemble.

    Keyword Args:
        loss_function (str): ``"l2"`` (default), ``"l1"`` or ``"smooth_l1"``.
        value_key (NestedKey): where the network writes; ``"state_action_value"`` by default.

    Raises:
        TypeError: if a network is not a TensorDict module.
        ValueError: if the loss function is unknown or there is no network.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl.modules import MLP, ValueOperator
        >>> from mpo_torchrl.critic import ScalarCritic
        >>> network = ValueOperator(MLP(in_features=4, out_features=1), ["observation", "action"])
        >>> critic = ScalarCritic(network)
        >>> td = TensorDict(observation=torch.zeros(5, 3), action=torch.zeros(5, 1), batch_size=5)
        >>> td["value_target"] = torch.ones(5, 1)
        >>> td = critic(td)
        >>> td["loss_qvalue"].shape, td["td_error"].shape
        (torch.Size([5]), torch.Size([5]))
    """

    def __init__(
        self,
        network: TensorDictModuleBase | Sequence[TensorDictModuleBase],
        *,
        loss_function: LossFunction = "l2",
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
        if loss_function not in ("l2", "l1", "smooth_l1"):
            raise ValueError(
                f"loss_function must be 'l2', 'l1' or 'smooth_l1', got {loss_function!r}."
            )
        self.networks = nn.ModuleList(networks)
        self.ensemble = Ensemble(networks[0])
        self.loss_function = loss_function
        self.value_key = value_key

    @property
    def in_keys(self) -> list[NestedKey]:
        """What the networks read."""
        return list(self.ensemble.in_keys)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Writes ``loss_qvalue`` and ``td_error``, each ``[*B]``, from ``value_target``."""
        prediction = self.predict(tensordict)
        target = tensordict.get("value_target").squeeze(-1)
        tensordict.set("loss_qvalue", self.loss(prediction, target))
        tensordict.set("td_error", self.td_error(prediction, target))
        return tensordict

    def predict(
        self,
        inputs: Any,
        params: ParameterSets | TensorDictBase | None = None,
        batch_size: torch.Size | None = None,
        *,
        hidden_dtype: torch.dtype | None = None,
        vmap_randomness: str | None = None,
    ) -> Tensor:
        """What each network says: ``[C, *B]``, unit of return.

        Args:
            inputs (TensorDictBase or dict): with the observation and the action.
            params (ParameterSets or TensorDictBase, optional): parameters to use in place of
                the networks' own.
            batch_size (torch.Size, optional): ``*B``; by default that of the TensorDict.

        Keyword Args:
            hidden_dtype (torch.dtype, optional): precision of all layers but the last.
            vmap_randomness (str, optional): see :class:`~mpo_torchrl.critic.ensemble.Ensemble`,
                as is ``hidden_dtype``; both only with ``params``.

        Raises:
            KeyError: if the network does not write the value's key.
            ValueError: if the value is not ``[*B, 1]``.
        """
        batch_size = inputs.batch_size if batch_size is None else batch_size
        if params is None:
            written = (network(inputs.copy()) for network in self.networks)
            value = torch.stack([output_of(tensordict, self.value_key) for tensordict in written])
        else:
            if isinstance(params, TensorDictBase):
                params = ParameterSets(params)
            value = self.ensemble(
                inputs,
                params,
                self.value_key,
                batch_size,
                hidden_dtype=hidden_dtype,
                vmap_randomness=vmap_randomness,
            )
        if value.shape[1:] != (*batch_size, 1):
            raise ValueError(
                f"the critic must write {self.value_key!r} as [*B, 1] = {[*batch_size, 1]}, got "
                f"{list(value.shape[1:])}; a critic of one value per state and action ends in a "
                "layer with one output."
            )
        return value.squeeze(-1)

    def value(self, prediction: Tensor) -> Tensor:
        """The pessimistic value: ``[C, *B]`` to ``[*B]``, unit of return."""
        return prediction.amin(0)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Distance to the target summed over the ensemble: ``[C, *B]``, ``[*B]`` to ``[*B]``."""
        target = target.detach().expand_as(prediction)  # a target is not trained
        return distance_loss(prediction, target, self.loss_function).sum(0)

    def td_error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Largest absolute error of the ensemble, the priority in replay: ``[*B]``."""
        return (prediction.detach() - target.detach()).abs().amax(0)
