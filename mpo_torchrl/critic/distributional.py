"""Critics that bootstrap from the whole distribution of returns."""

from __future__ import annotations

from abc import abstractmethod

import torch
from tensordict import TensorDictBase, unravel_key
from torch import Tensor
from torchrl.objectives.value import TD0Estimator, ValueEstimatorBase

from mpo_torchrl.critic.base import Critic


class DistributionalCritic(Critic):
    r"""A critic whose target is a distribution: that of reward plus discounted next return.

    .. math:: Z(s, a) \overset{D}{=} r + \gamma Z(s', a'), \qquad a' \sim \pi(\cdot \mid s')

    From `Bellemare et al. (2017) <https://arxiv.org/abs/1707.06887>`_. The next distribution is
    the mixture over the ``M`` bootstrap actions of the ensemble's member with the smallest mean
    there, so that the target's mean is the scalar critic's target.

    TorchRL's value estimators know one number a state. Reward and discount, n-step or not, are
    theirs all the same; TD(1) and TD(lambda), which mix values of several states, are refused.

    Args:
        network (TensorDictModuleBase or sequence of them): reads the observation and the
            action, writes ``[*B, K]``. A sequence is an ensemble.
        num_outputs (int): ``K``.

    Keyword Args:
        value_key (NestedKey): where the network writes; ``"state_action_value"`` by default.

    Examples:
        >>> import torch
        >>> from torchrl.modules import MLP, ValueOperator
        >>> from mpo_torchrl.critic import QuantileCritic
        >>> network = ValueOperator(MLP(in_features=4, out_features=2), ["observation", "action"])
        >>> critic = QuantileCritic(network, num_quantiles=2)
        >>> prediction = torch.tensor([[[0.0, 4.0]], [[1.0, 1.0]]])  # [C=2, B=1, K=2]
        >>> critic.pessimistic(prediction), critic.value(prediction)
        (tensor([[1., 1.]]), tensor([1.]))
    """

    @abstractmethod
    def backup(self, following: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
        """The target of reward plus discounted return, mixed over ``M`` actions.

        Args:
            following (Tensor): ``[*B, M, K]``, predictions in the next state.
            reward (Tensor): ``[*B, 1]``, unit of return.
            discount (Tensor): ``[*B, 1]``, of what follows; 0 after a termination.
        """

    def target(
        self, tensordict: TensorDictBase, prediction: Tensor, estimator: ValueEstimatorBase
    ) -> Tensor:
        """What :meth:`loss` takes, from rewards and next distributions: ``[*B, ...]``.

        Args:
            tensordict (TensorDictBase): ``[*B]`` transitions.
            prediction (Tensor): ``[C, *B, M, K]``, at ``M`` actions in the next state.
            estimator (ValueEstimatorBase): TD(0), for rewards and discounts.
        """
        reward, discount = reward_and_discount(tensordict, estimator)
        following = self.pessimistic(prediction)
        return self.backup(following, reward.to(following.dtype), discount.to(following.dtype))

    def pessimistic(self, prediction: Tensor) -> Tensor:
        """The ensemble's member with the smallest mean: ``[C, *B, K]`` to ``[*B, K]``."""
        member = self.mean(prediction).argmin(0, keepdim=True).unsqueeze(-1)
        return torch.take_along_dim(prediction, member, 0).squeeze(0)

    def require_estimator(self, estimator: ValueEstimatorBase) -> None:
        """Raises ``ValueError`` unless it is TD(0)."""
        if not isinstance(estimator, TD0Estimator):
            raise ValueError(
                f"{type(self).__name__} needs the value estimator TD0, got "
                f"{type(estimator).__name__}: values of several states cannot be mixed as "
                "distributions; for longer returns put n-step rewards into the replay buffer."
            )


def reward_and_discount(
    tensordict: TensorDictBase, estimator: ValueEstimatorBase
) -> tuple[Tensor, Tensor]:
    """What a one-step estimator adds to the next value, and what it multiplies it with.

    They are read off the estimator, at a next value of zero and at one without reward: what it
    makes of n-step data and of terminations is said in one place.

    Args:
        tensordict (TensorDictBase): ``[*B]`` transitions.
        estimator (ValueEstimatorBase): TD(0).

    Returns:
        tuple[Tensor, Tensor]: each ``[*B, 1]``.
    """
    key = unravel_key(("next", estimator.tensor_keys.reward))
    zero = torch.zeros_like(tensordict.get(key))
    reward = estimator.value_estimate(tensordict, next_value=zero)
    unrewarded = tensordict.copy().set(key, zero)
    discount = estimator.value_estimate(unrewarded, next_value=torch.ones_like(zero))
    return reward, discount
