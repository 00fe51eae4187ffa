"""What losses with an actor share: its reference policy, its trust region, its ties."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import NestedKey
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictParams
from torch import Tensor, nn
from torchrl.objectives.utils import _cache_values

from mpo_torchrl.loss.base import LagrangianLoss
from mpo_torchrl.loss.networks import tie_parameters, untie_parameters
from mpo_torchrl.m_step import Fit
from mpo_torchrl.stateless import ParameterSets


class ActorLoss(LagrangianLoss):
    """A loss that moves an actor away from a reference policy, as far as KL bounds allow.

    Subclasses name the network that may share parameters with the actor in ``critic_name``, put
    what is shared into ``_shared``, and call :meth:`_wire_multipliers` with their own parts.
    """

    critic_name: str
    actor_network: ProbabilisticTensorDictSequential
    actor_network_params: TensorDictParams
    target_actor_network_params: TensorDictParams
    delay_actor: bool
    separate_losses: bool
    _shared: dict[NestedKey, NestedKey]
    _m_step: Any

    # -- wiring ---------------------------------------------------------------------------

    def __init__(self) -> None:
        super().__init__()
        # Not in load_state_dict, which a greater module does not call of its parts.
        self.register_load_state_dict_pre_hook(_untie)
        self.register_load_state_dict_post_hook(_tie)

    def _wire_multipliers(self, temperatures: dict[str, nn.Module], m_step: Any) -> None:
        """Makes the multipliers parameters of the loss, under the names of its diagnostics."""
        self.__dict__["_m_step"] = m_step
        multipliers: dict[str, nn.Module] = dict(m_step.multipliers.items())
        alphas = {f"alpha_{name}": multiplier for name, multiplier in multipliers.items()}
        like = next((p for p in self.actor_network_params.parameters()), None)
        for name, multiplier in {**temperatures, **alphas}.items():
            self.add_module(name, multiplier)
            if like is not None:
                multiplier.to(device=like.device, dtype=like.dtype)

    # -- what the critic shares with the actor ---------------------------------------------

    def _tie_parameters(self) -> None:
        critic_params = getattr(self, f"{self.critic_name}_params")
        tie_parameters(critic_params, self.actor_network_params, self._shared)
        self._erase_cache()

    def _follow_new_data(self) -> None:
        """Ties anew where a shared parameter was given new memory, as by ``parameter.data =``."""
        if not self._shared or torch.compiler.is_compiling():
            return
        tied, owned = self._trained_critics.params, self.actor_network_params
        for key, own in self._shared.items():
            if tied.get(key).data_ptr() != owned.get(own).data_ptr():
                return self._tie_parameters()

    def _apply(self, fn: Any) -> ActorLoss:
        super()._apply(fn)
        self._tie_parameters()
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._tie_parameters()

    # -- the actor's parameters; caches are dropped when they move or change precision ------

    @property
    @_cache_values
    def _online_actor(self) -> ParameterSets:
        return ParameterSets(self.actor_network_params, role="actor_network")

    @property
    @_cache_values
    def _reference_actor(self) -> ParameterSets:
        # Without a target the network itself, which is only ever asked without gradients.
        return (
            ParameterSets(self.target_actor_network_params, role="target_actor_network")
            if self.delay_actor
            else self._online_actor
        )

    @property
    @_cache_values
    def _trained_critics(self) -> ParameterSets:
        # What a critic shares with the actor is then the actor's to train.
        frozen = self._shared if self.separate_losses else ()
        name = self.critic_name
        return ParameterSets(getattr(self, f"{name}_params"), frozen=frozen, role=name)

    def _parameter_names(self) -> list[str]:
        names = [f"{name}_params" for name in self.network_names]
        return [*names, *[f"target_{name}" for name in names]]

    # -- the M-step -------------------------------------------------------------------------

    def _policy_terms(self, fit: Fit) -> tuple[Tensor, Tensor]:
        """The losses ``[*B]`` of the policy and of the KL multipliers."""
        loss_actor, loss_alpha = fit.nll, fit.nll.new_zeros(fit.nll.shape)
        for name, kl in fit.kl.items():
            multiplier: Any = self._modules[f"alpha_{name}"]
            loss_actor = loss_actor + multiplier.penalty(kl)
            loss_alpha = loss_alpha + multiplier.loss(kl)
        return loss_actor, loss_alpha

    def _fit_readings(self, fit: Fit) -> dict[str, Tensor]:
        readings = {f"kl_{name}": kl.detach() for name, kl in fit.kl.items()}
        for name in fit.kl:
            multiplier: Any = self._modules[f"alpha_{name}"]
            readings[f"alpha_{name}"] = multiplier().detach()
        return {**readings, **fit.readings}


def _untie(loss: ActorLoss, *_: Any) -> None:
    untie_parameters(getattr(loss, f"{loss.critic_name}_params"), loss._shared)


def _tie(loss: ActorLoss, _: Any) -> None:
    loss._tie_parameters()
