"""The way of every off-policy member of the family: improve, price, fit."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import dispatch
from torch import Tensor

from mpo_torchrl.loss import checks
from mpo_torchrl.loss.actor_critic import ActorCriticLoss
from mpo_torchrl.loss.networks import next_key
from mpo_torchrl.m_step import Fit


class ImprovementLoss(ActorCriticLoss):
    """Runs the four parts in their order; subclasses say how each of them is done.

    A subclass sets ``_m_step`` and implements :meth:`_improve`, :meth:`_value_target`,
    :meth:`_temperature_terms` and :meth:`_fit`.
    """

    def _make_out_keys(self) -> list[NestedKey]:
        keys = ["loss_qvalue", "loss_temperature", "loss_actor", "loss_alpha"]
        if self.reports_scalars:
            keys += dict.fromkeys(["temperature", *self.multipliers()])
            keys += ["kl_e_step", "effective_sample_size"]
            keys += [f"kl_{name}" for name in self._m_step.multipliers]
            keys += [*self._m_step.readings, "q_value"]
        return keys

    # -- the loss -------------------------------------------------------------------------

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Computes every loss; writes the priority of each transition into the batch.

        Args:
            tensordict (TensorDictBase): ``[*B]`` transitions with the entries of
                :attr:`in_keys`. What it holds of an E-step is used as it is.

        Returns:
            TensorDictBase: the entries of :attr:`out_keys`. Train on the sum of those that
            start with ``"loss"``; the others are detached.

        Raises:
            KeyError: if an entry is missing.
            ValueError: if the batch is empty, a shape is wrong, or the first batch holds
                numbers that are not finite.
        """
        batch = self._checked(tensordict)
        reduce = self._reducer(batch)
        improved, reference = self._improve(batch)
        target = self._value_target(batch, improved)
        loss_qvalue, readings = self._qvalue_terms(batch, target)
        self._write_priority(tensordict, readings)
        loss_temperature, temperature_readings = self._temperature_terms(improved)
        fit = self._fit(batch, improved, reference)
        loss_actor, loss_alpha = self._policy_terms(fit)

        losses = {
            "loss_qvalue": loss_qvalue,
            "loss_temperature": reduce(loss_temperature),
            "loss_actor": reduce(loss_actor),
            "loss_alpha": reduce(loss_alpha),
        }
        readings = {**readings, **temperature_readings, **self._fit_readings(fit)}
        output = self._output(losses, readings, reduce)
        self._clear_weakrefs(tensordict, output, *self._parameter_names())
        return output

    def qvalue_loss(self, tensordict: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        """Part 1 alone: the critic's loss; writes the priority into the batch.

        Returns:
            tuple[Tensor, dict]: the reduced loss, and ``"td_error"`` and ``"q_value"``,
            ``[*B]``, detached.
        """
        batch = self._checked(tensordict)
        improved = self._improve(batch)[0] if self._improves_next else None
        loss, readings = self._qvalue_terms(batch, self._value_target(batch, improved))
        self._write_priority(tensordict, readings)
        return loss, readings

    def e_step(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Part 2 alone: writes ``"e_step"`` into the batch, keeping what is already there.

        Returns:
            TensorDictBase: the batch, with the entries of the E-step's own ``forward``. With
            ``burn_in`` only the steps that follow it, which is no batch to give to the loss
            again: it would burn in its first steps once more.
        """
        improved, _ = self._improve(self._checked_states(tensordict))
        return self._learned(tensordict).set(self.tensor_keys.e_step, improved)

    def temperature_loss(self, tensordict: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        """Part 3 alone, its first half: the loss of the temperatures.

        Returns:
            tuple[Tensor, dict]: the reduced loss, and the diagnostics of the E-step.
        """
        improved, _ = self._improve(self._checked_states(tensordict))
        loss, readings = self._temperature_terms(improved)
        return self._reducer(self._learned(tensordict))(loss), readings

    def actor_loss(self, tensordict: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        """Part 4 alone: the loss of the policy, on a fresh E-step unless the batch has one.

        Returns:
            tuple[Tensor, dict]: the reduced loss, and the KLs, ``[*B, A]`` or ``[*B]``,
            detached, with the other diagnostics of the M-step.
        """
        fit = self._fit_alone(tensordict)
        loss, _ = self._policy_terms(fit)
        return self._reducer(self._learned(tensordict))(loss), self._fit_readings(fit)

    def alpha_loss(self, tensordict: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        """Part 3 alone, its second half: the loss of the KL multipliers.

        Returns:
            tuple[Tensor, dict]: the reduced loss, and the diagnostics of the M-step.
        """
        fit = self._fit_alone(tensordict)
        _, loss = self._policy_terms(fit)
        return self._reducer(self._learned(tensordict))(loss), self._fit_readings(fit)

    # -- the steps, as a subclass does them -------------------------------------------------

    @property
    def _improves_next(self) -> bool:
        """Whether the policy is improved at the next state, sharing the bootstrap's pass."""
        return False

    def _improve(self, tensordict: TensorDictBase) -> tuple[TensorDictBase, Any]:
        """The E-step, and the reference policy it started from."""
        raise NotImplementedError

    def _value_target(self, tensordict: TensorDictBase, improved: TensorDictBase | None) -> Tensor:
        """The critic's target ``[*B]``; ``improved`` is there if it holds the next state's."""
        raise NotImplementedError

    def _temperature_terms(self, improved: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        """The dual of the E-step ``[*B]``, and its diagnostics."""
        raise NotImplementedError

    def _fit(self, tensordict: TensorDictBase, improved: TensorDictBase, reference: Any) -> Fit:
        """The M-step: the online policy against the result of the E-step."""
        raise NotImplementedError

    # -- what they share --------------------------------------------------------------------

    def _given(self, tensordict: TensorDictBase) -> TensorDictBase | None:
        """What the batch already holds of an E-step."""
        given = tensordict.get(self.tensor_keys.e_step, None)
        checks.require_given(self.tensor_keys.e_step, given)
        return given

    def _require_outcome(self, tensordict: TensorDictBase, batch: torch.Size) -> None:
        """Checks that reward and flags are those of the states ``[*B]``."""
        keys, size = self.tensor_keys, self.critic.num_objectives
        reward = tensordict.get(next_key(keys.reward))
        checks.require_reward_shape(keys.reward, reward.shape, batch, size)
        flags = [next_key(keys.done), next_key(keys.terminated)]
        checks.require_flag_shapes(tensordict, flags, batch, size)

    def _fit_alone(self, tensordict: TensorDictBase) -> Fit:
        batch = self._checked_states(tensordict)
        return self._fit(batch, *self._improve(batch))

    def _checked_states(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The batch to improve a policy with: no state is missing, and nothing masked does harm."""
        states = [next_key(key) if self._improves_next else key for key in self._state_keys()]
        checks.require_keys(tensordict, states)
        batch = self._prepared(tensordict)
        self.require_first_finite(batch)
        return batch
