"""A critic that values every action of a discrete space at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensordict import NestedKey
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from mpo_torchrl.critic.base import Critic
from mpo_torchrl.critic.scalar import LossFunction, ScalarCritic


class EnumeratedCritic(ScalarCritic):
    r"""An ensemble of networks with an output for each action.

    .. math:: \ell = \sum_{c=1}^C d\big(Q_c(s)_a,\; y\big), \qquad V_a = \min_c Q_c(s)_a

    with :math:`y` the target and :math:`d` as in :class:`~mpo_torchrl.critic.ScalarCritic`. The
    minimum over the ensemble is that of `Fujimoto et al. (2018)
    <https://arxiv.org/abs/1802.09477>`_.

    Args:
        network (TensorDictModuleBase or sequence of them): reads the observation, writes the
            value of each action ``[*B, A]``. A sequence is an ensemble.

    Keyword Args:
        loss_function (str): ``"l2"`` (default), ``"l1"`` or ``"smooth_l1"``.
        value_key (NestedKey): where the network writes; ``"action_value"`` by default.

    Raises:
        TypeError: if a network is not a TensorDict module.
        ValueError: if the loss function is unknown or networks are missing, the same or not built
            alike.

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

    reads_action = False

    def __init__(
        self,
        network: TensorDictModuleBase | Sequence[TensorDictModuleBase],
        *,
        loss_function: LossFunction = "l2",
        value_key: NestedKey = "action_value",
    ) -> None:
        super().__init__(network, loss_function=loss_function, value_key=value_key)
        self.num_outputs = None  # as many as there are actions

    def predict(self, *args: Any, **kwargs: Any) -> Tensor:
        """What each network says of each action: ``[C, *B, A]``; see :meth:`Critic.predict`."""
        return Critic.predict(self, *args, **kwargs)

    def _outputs_needed(self) -> str:
        return "a critic of discrete actions ends in a layer with an output for each"
