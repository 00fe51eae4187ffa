"""Retrace as a value estimator of TorchRL: ``loss.make_value_estimator("retrace")``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor
from torchrl.objectives.utils import register_value_estimator
from torchrl.objectives.value import ValueEstimatorBase

from mpo_torchrl.distributions import per_state
from mpo_torchrl.functional import retrace_return

RETRACE = "retrace"


@register_value_estimator(RETRACE, default_kwargs={"gamma": 0.99, "lmbda": 0.95})
class RetraceEstimator(ValueEstimatorBase):
    r"""Off-policy returns over sequences ``[*B, T]``, cut where the behaviour left the policy.

    Time is the last dimension of the batch, or the one that is named ``"time"``; agents
    ``[*B, T, n]`` have returns of their own.

    .. math:: G_t = r_t + \gamma (1 - d_t) \big(V_{t+1} + c_{t+1} (G_{t+1} - Q_{t+1})\big), \qquad
        c_t = \lambda \min\Big(1, \frac{\pi(a_t \mid s_t)}{\mu(a_t \mid s_t)}\Big)

    and no trace beyond the end of an episode or of the sequence, where the value takes over.
    From `Munos et al. (2016) <https://arxiv.org/abs/1606.02647>`_; see
    :func:`~mpo_torchrl.functional.retrace_return`.

    Args:
        gamma (float): the discount.
        lmbda (float): how far to trust longer returns, between 0, one step, and 1.

    Keyword Args:
        value_network (optional): not used; values are handed over.
        device (torch.device, optional): where the discount is kept.
        deactivate_vmap (bool): not used; there is nothing to map over.

    Raises:
        ValueError: if ``lmbda`` is not between 0 and 1.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from mpo_torchrl.critic import RetraceEstimator
        >>> one = torch.ones(1, 2, 1)
        >>> no = torch.zeros(1, 2, 1, dtype=torch.bool)
        >>> td = TensorDict(
        ...     action_log_prob=one[..., 0],
        ...     policy_log_prob=one[..., 0],
        ...     state_action_value=2 * one,
        ...     next=TensorDict(reward=one, done=no, terminated=no, batch_size=[1, 2]),
        ...     batch_size=[1, 2],
        ... )
        >>> estimator = RetraceEstimator(gamma=0.5, lmbda=1.0)
        >>> estimator.value_estimate(td, next_value=4 * one).squeeze(-1)
        tensor([[3.5000, 3.0000]])
    """

    @dataclass
    class _AcceptedKeys:
        """The configurable TensorDict keys and their defaults, set with ``set_keys``.

        Attributes:
            value: the value of the next state, which :meth:`forward` reads under ``"next"``.
            value_target: where :meth:`forward` writes.
            reward, done, terminated: read under ``"next"``.
            state_action_value: the value of the action taken, ``[*B, T, 1]``.
            policy_log_prob: its log-probability under the policy, ``[*B, T]``.
            sample_log_prob: its log-probability when it was taken, ``[*B, T]``.
            steps_to_next_obs: what batches of several steps a transition hold; they are refused.
        """

        value: NestedKey = "state_value"
        value_target: NestedKey = "value_target"
        reward: NestedKey = "reward"
        done: NestedKey = "done"
        terminated: NestedKey = "terminated"
        state_action_value: NestedKey = "state_action_value"
        policy_log_prob: NestedKey = "policy_log_prob"
        sample_log_prob: NestedKey = "action_log_prob"
        steps_to_next_obs: NestedKey = "steps_to_next_obs"

    default_keys = _AcceptedKeys
    tensor_keys: _AcceptedKeys
    gamma: Tensor

    def __init__(
        self,
        gamma: float,
        lmbda: float = 0.95,
        *,
        value_network: Any = None,
        device: torch.device | None = None,
        deactivate_vmap: bool = False,
    ) -> None:
        if not 0 <= lmbda <= 1:
            raise ValueError(f"lmbda must be between 0 and 1, got {lmbda}.")
        super().__init__(
            value_network=value_network, device=device, deactivate_vmap=deactivate_vmap
        )
        self.register_buffer("gamma", torch.tensor(gamma, device=device))
        self.lmbda = lmbda

    def forward(self, tensordict: TensorDictBase, **kwargs: Any) -> TensorDictBase:
        """Writes ``"value_target"`` from values that stand under ``("next", "state_value")``."""
        next_value = tensordict.get(("next", self.tensor_keys.value))
        target = self.value_estimate(tensordict, next_value=next_value)
        return tensordict.set(self.tensor_keys.value_target, target)

    def value_estimate(
        self,
        tensordict: TensorDictBase,
        target_params: TensorDictBase | None = None,
        next_value: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The returns ``[*B, T, 1]``.

        Args:
            tensordict (TensorDictBase): ``[*B, T]`` transitions with both log-probabilities and
                the value of the action taken.
            target_params (TensorDictBase, optional): not used.
            next_value (Tensor): ``[*B, T, 1]``, value of the policy in the next state.
            **kwargs: what other estimators take; not used.

        Raises:
            ValueError: if there is no ``next_value``, a flag has another shape than the reward,
                or a transition is of several steps.
        """
        if next_value is None:
            raise ValueError("RetraceEstimator needs next_value, the value of the next states.")
        keys = self.tensor_keys
        if tensordict.get(keys.steps_to_next_obs, None) is not None:
            raise ValueError(
                "Retrace reads one step a transition, and by "
                f"{keys.steps_to_next_obs!r} the batch has several; take TD(0), or n_step=1."
            )
        following = tensordict.get("next")
        reward, done = following.get(keys.reward), following.get(keys.done)
        terminated = following.get(keys.terminated, done)
        for key, flag in ((keys.done, done), (keys.terminated, terminated)):
            if flag.shape != reward.shape:
                raise ValueError(
                    f"the flag under {('next', key)!r} must be of the shape of the reward, "
                    f"{list(reward.shape)}, got {list(flag.shape)}."
                )
        # A batch may count the last dimension of its entries as its own.
        time = min(self._get_time_dim(None, tensordict), reward.ndim - 2)

        def in_time(entry: Tensor) -> Tensor:
            return per_state(entry, reward.ndim - 1).movedim(time, -1)

        log_ratio = in_time(tensordict.get(keys.policy_log_prob))
        log_ratio = log_ratio - in_time(tensordict.get(keys.sample_log_prob))
        trace = self.lmbda * log_ratio.clamp(max=0.0).exp()
        # What follows an end belongs to another episode: the value stands in for it.
        live = (~in_time(done.squeeze(-1))).to(trace.dtype)
        discount = self.gamma * (~terminated.squeeze(-1)).to(next_value.dtype)
        returns = retrace_return(
            in_time(reward.squeeze(-1)),
            in_time(discount),
            in_time(next_value.squeeze(-1)),
            in_time(tensordict.get(keys.state_action_value).squeeze(-1))[..., 1:],
            trace[..., 1:] * live[..., :-1],
        )
        return returns.movedim(-1, time).unsqueeze(-1)
