"""A critic that values an action under each of several rewards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensordict import NestedKey, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.objectives.utils import distance_loss
from torchrl.objectives.value import ValueEstimatorBase

from mpo_torchrl.critic.base import Critic
from mpo_torchrl.critic.retrace import RetraceEstimator
from mpo_torchrl.critic.scalar import LossFunction, ScalarCritic
from mpo_torchrl.errors import require_count


class MultiObjectiveCritic(ScalarCritic):
    r"""An ensemble of networks with an output for each of ``K`` rewards.

    .. math:: \ell = \sum_{c=1}^C \sum_{k=1}^K d\big(Q_{c,k}(s, a),\; y_k\big), \qquad
        V_k = \min_c Q_{c,k}

    From `Abdolmaleki et al. (2020) <https://arxiv.org/abs/2005.07513>`_, a critic for each reward;
    here they share all layers but the last.

    Args:
        network (TensorDictModuleBase or sequence of them): reads the observation and the action,
            writes ``[*B, K]``. A sequence is an ensemble.
        num_objectives (int): ``K``.

    Keyword Args:
        loss_function (str): ``"l2"`` (default), ``"l1"`` or ``"smooth_l1"``.
        value_key (NestedKey): where the network writes; ``"state_action_value"`` by default.

    Raises:
        TypeError: if a network is not a TensorDict module, or a count no whole number.
        ValueError: if the loss function is unknown, networks are missing, the same or not built
            alike, or there is no objective.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl.data import Bounded
        >>> from mpo_torchrl.critic import MultiObjectiveCritic
        >>> from mpo_torchrl.modules import make_critics
        >>> networks = make_critics(3, Bounded(-1.0, 1.0, (1,)), num_outputs=2)
        >>> critic = MultiObjectiveCritic(networks, num_objectives=2)
        >>> td = TensorDict(observation=torch.zeros(5, 3), action=torch.zeros(5, 1), batch_size=5)
        >>> critic.value(critic.predict(td)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        network: TensorDictModuleBase | Sequence[TensorDictModuleBase],
        num_objectives: int,
        *,
        loss_function: LossFunction = "l2",
        value_key: NestedKey = "state_action_value",
    ) -> None:
        require_count("num_objectives", num_objectives)
        super().__init__(network, loss_function=loss_function, value_key=value_key)
        self.num_outputs = self.num_objectives = num_objectives

    def predict(self, *args: Any, **kwargs: Any) -> Tensor:
        """What each network says: ``[C, *B, K]``; see :meth:`Critic.predict`."""
        return Critic.predict(self, *args, **kwargs)

    def _outputs_needed(self) -> str:
        return f"a critic of {self.num_objectives} objectives ends in a layer with an output each"

    def encode(self, value_target: Tensor) -> Tensor:
        """The target itself: ``[*B, K]``."""
        return value_target

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """``[C, *B, K]`` and ``[*B, K]`` to ``[*B]``, summed over ensemble and objectives."""
        target = target.detach().expand_as(prediction)  # a target is not trained
        return distance_loss(prediction, target, self.loss_function).sum((0, -1))

    def td_error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Largest absolute error of the ensemble and the objectives: ``[*B]``."""
        return super().td_error(prediction, target).amax(-1)

    def require_estimator(self, estimator: ValueEstimatorBase) -> None:
        """Raises ``ValueError`` if it is Retrace."""
        if isinstance(estimator, RetraceEstimator):
            raise ValueError(
                "Retrace estimates the return of one reward, a MultiObjectiveCritic has "
                f"{self.num_objectives}; take TD(0), TD(1) or TD(lambda)."
            )

    def target(
        self, tensordict: TensorDictBase, prediction: Tensor, estimator: ValueEstimatorBase
    ) -> Tensor:
        """Each reward and what follows of it: ``[*B, K]``."""
        next_value = self.value(prediction).mean(-2)  # [*B, K], over the M actions
        # TorchRL's estimators want flags and numbers of steps in the shape of the rewards.
        following = tensordict.get("next").copy()
        for key in (estimator.tensor_keys.done, estimator.tensor_keys.terminated):
            flag = following.get(key, None)
            if flag is not None:
                following.set(key, flag.expand(next_value.shape))
        tensordict = tensordict.copy().set("next", following)
        key = estimator.tensor_keys.steps_to_next_obs
        steps = tensordict.get(key, None)
        if steps is not None:
            steps = steps.reshape(*next_value.shape[:-1], 1)
            tensordict.set(key, steps.expand(next_value.shape))
        return estimator.value_estimate(tensordict, next_value=next_value)
