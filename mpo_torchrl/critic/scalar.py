"""A critic that predicts one number: the expected return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from tensordict import NestedKey
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.objectives.utils import distance_loss

from mpo_torchrl.critic.base import Critic

LossFunction = Literal["l2", "l1", "smooth_l1"]


class ScalarCritic(Critic):
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
        ValueError: if the loss function is unknown or networks are missing, the same or not built
            alike.

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
        super().__init__(network, 1, value_key=value_key)
        if loss_function not in ("l2", "l1", "smooth_l1"):
            raise ValueError(
                f"loss_function must be 'l2', 'l1' or 'smooth_l1', got {loss_function!r}."
            )
        self.loss_function = loss_function

    def predict(self, *args: Any, **kwargs: Any) -> Tensor:
        """What each network says: ``[C, *B]``, unit of return; see :meth:`Critic.predict`."""
        return super().predict(*args, **kwargs).squeeze(-1)

    def _outputs_needed(self) -> str:
        return "a critic of one value per state and action ends in a layer with one output"

    def mean(self, prediction: Tensor) -> Tensor:
        """The prediction itself: ``[...]``."""
        return prediction

    def encode(self, value_target: Tensor) -> Tensor:
        """``[*B, 1]`` to ``[*B]``."""
        return value_target.squeeze(-1)

    def decode(self, target: Tensor) -> Tensor:
        """The target itself: ``[*B]``."""
        return target

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Distance to the target summed over the ensemble: ``[C, *B]``, ``[*B]`` to ``[*B]``."""
        target = target.detach().expand_as(prediction)  # a target is not trained
        return distance_loss(prediction, target, self.loss_function).sum(0)
