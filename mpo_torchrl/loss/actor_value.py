"""What losses of an actor and a network of state values share: their wiring and the value terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import (
    CompositeDistribution,
    ProbabilisticTensorDictSequential,
    TensorDictModule,
    TensorDictModuleBase,
    TensorDictParams,
    composite_lp_aggregate,
)
from torch import Tensor
from torch import distributions as d
from torchrl.objectives.utils import ValueEstimators, dispatch_value_estimator, distance_loss
from torchrl.objectives.value import VTrace

from mpo_torchrl.critic.scalar import LossFunction
from mpo_torchrl.distributions import action_shape
from mpo_torchrl.loss import checks
from mpo_torchrl.loss.actor import ActorLoss
from mpo_torchrl.loss.networks import next_key, sampling_module, shared_parameters
from mpo_torchrl.stateless import ParameterSets


class ActorValueLoss(ActorLoss):
    """A loss with an actor, a network of state values, and a target of each.

    Subclasses call :meth:`_wire_networks` at construction and then work on the batch of
    :meth:`_with_advantage`.
    """

    @dataclass
    class _AcceptedKeys:
        """The configurable TensorDict keys and their defaults, set with ``set_keys``.

        Attributes:
            advantage: how much better the step was than expected; computed if it is missing.
            value_target: what the critic is trained on; computed with the advantage.
            value: where the critic writes. Defaults to its last output if it has no such.
            action: the action taken. Defaults to the key that the actor samples.
            sample_log_prob: its log-probability when it was taken, for importance weights and
                V-trace. Defaults to the key that the actor writes.
            reward, done, terminated: read under ``"next"``; ``done`` of the step itself with
                ``ignore_restarts``.
            importance_weight: weights of steps that an older policy took, if there are any.
            restarting_weight: 0 where the action had no effect, else 1, if there are any.
        """

        advantage: NestedKey = "advantage"
        value_target: NestedKey = "value_target"
        value: NestedKey = "state_value"
        action: NestedKey = "action"
        sample_log_prob: NestedKey | None = None
        reward: NestedKey = "reward"
        done: NestedKey = "done"
        terminated: NestedKey = "terminated"
        importance_weight: NestedKey = "importance_weight"
        restarting_weight: NestedKey = "restarting_weight"

        def __post_init__(self) -> None:
            if self.sample_log_prob is None:
                aggregate = composite_lp_aggregate(nowarn=True)
                self.sample_log_prob = "sample_log_prob" if aggregate else "action_log_prob"

    default_keys = _AcceptedKeys
    tensor_keys: _AcceptedKeys
    default_value_estimator = ValueEstimators.GAE
    SUPPORTED_VALUE_ESTIMATORS = (
        ValueEstimators.TD0,
        ValueEstimators.TD1,
        ValueEstimators.TDLambda,
        ValueEstimators.GAE,
        ValueEstimators.VTrace,
    )

    critic_network: TensorDictModule
    critic_network_params: TensorDictParams
    target_critic_network_params: TensorDictParams
    network_names = ("actor_network", "critic_network")
    critic_name = "critic_network"
    loss_critic_type: LossFunction
    critic_coeff: float

    # -- wiring ---------------------------------------------------------------------------

    def _wire_networks(
        self,
        actor_network: ProbabilisticTensorDictSequential,
        critic_network: TensorDictModule,
        delay_actor: bool,
        separate_losses: bool,
    ) -> None:
        sampling = sampling_module(actor_network)  # raises if the actor is deterministic
        if sampling.distribution_class is CompositeDistribution:
            raise ValueError(
                f"{type(self).__name__} trains one action, the policy is a "
                "CompositeDistribution of several; MPOLoss trains several heads."
            )
        if not isinstance(critic_network, TensorDictModuleBase):
            raise TypeError(
                "critic_network must be a TensorDict module such as torchrl's ValueOperator, got "
                f"{type(critic_network).__name__}."
            )
        action_key = actor_network.dist_sample_keys[0]
        if action_key in critic_network.in_keys:
            raise ValueError(
                f"critic_network must value states, it reads the action {action_key!r}; leave it "
                "out of the critic's in_keys, or take MPOLoss."
            )
        checks.require_own_features(critic_network.in_keys, actor_network.out_keys, [action_key])
        log_prob_keys, value_keys = actor_network.log_prob_keys, critic_network.out_keys
        self.set_keys(
            action=action_key,
            **({"sample_log_prob": log_prob_keys[0]} if log_prob_keys else {}),
            **({} if self.tensor_keys.value in value_keys else {"value": value_keys[-1]}),
        )
        self.delay_actor, self.separate_losses = delay_actor, separate_losses
        self.convert_to_functional(actor_network, "actor_network", create_target_params=delay_actor)
        self.convert_to_functional(
            critic_network,
            "critic_network",
            compare_against=list(actor_network.parameters()) if separate_losses else None,
        )
        self._shared = shared_parameters([critic_network], self.actor_network_params)
        self._tie_parameters()

    def make_value_estimator(self, value_type: Any = None, **hyperparams: Any) -> ActorValueLoss:
        """Chooses how rewards and values become advantages and targets.

        GAE by default; TD(0), TD(1), TD(lambda) and V-trace, too.
        """
        value_type, hp = self._prepare_value_estimator_kwargs(value_type, **hyperparams)
        if value_type is not None:
            dispatch_value_estimator(
                self, value_type, supported=self.SUPPORTED_VALUE_ESTIMATORS, **hp
            )
        self._forward_value_estimator_keys()
        return self

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        if self._value_estimator is not None:
            keys = self.tensor_keys
            self._value_estimator.set_keys(
                advantage=keys.advantage,
                value_target=keys.value_target,
                value=keys.value,
                reward=keys.reward,
                done=keys.done,
                terminated=keys.terminated,
                sample_log_prob=keys.sample_log_prob,
            )
        self._in_keys = None  # made anew from the new names

    def _make_in_keys(self) -> list[NestedKey]:
        keys = [*self._steps_keys(), *self._estimator_keys(), *self._conditional_keys()]
        return list(dict.fromkeys(keys))

    def _steps_keys(self) -> list[NestedKey]:
        """What every batch of steps holds."""
        keys = self.tensor_keys
        states = [*self.actor_network.in_keys, *self.critic_network.in_keys]
        following = [*states, keys.reward, keys.done, keys.terminated]
        return [*states, keys.action, *[next_key(key) for key in following]]

    def _estimator_keys(self) -> list[NestedKey]:
        """What the value estimator reads beside it."""
        v_trace = isinstance(self._value_estimator, VTrace)
        return [self.tensor_keys.sample_log_prob] if v_trace else []

    def _conditional_keys(self) -> list[NestedKey]:
        """What settings of the loss make it read, unless the batch holds what is made of it."""
        return []

    # -- the steps ------------------------------------------------------------------------

    def _with_advantage(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The batch to compute with: nothing is missing, and nothing masked does harm."""
        keys = self.tensor_keys
        has_advantage = tensordict.get(keys.advantage, None) is not None
        needed = [key for key in self._steps_keys() if not (has_advantage and _is_next(key))]
        needed = [key for key in needed if key != next_key(keys.terminated)]
        needed += [keys.value_target] if has_advantage else self._estimator_keys()
        further = self._further_keys(tensordict)
        checks.require_keys(tensordict, [*needed, *further])
        flags = [] if has_advantage else [next_key(keys.done), next_key(keys.terminated)]
        checks.require_flags(tensordict, [*flags, *further])
        self._require_sized_layers()
        self._follow_new_data()
        batch = self._without_masked(tensordict)
        self.require_first_finite(batch)
        if batch is tensordict:
            batch = tensordict.copy()
        if not has_advantage:
            with torch.no_grad():
                self.value_estimator(
                    batch,
                    params=self._detached_critic.params,
                    target_params=self.target_critic_network_params,
                )
        self._require_shapes(batch)
        return batch

    def _further_keys(self, tensordict: TensorDictBase) -> list[NestedKey]:
        """The flags that this batch must hold beside the keys of its steps."""
        return []

    def _optional_keys(self) -> list[NestedKey]:
        keys = self.tensor_keys
        return [keys.advantage, keys.value_target, keys.importance_weight, keys.restarting_weight]

    def _require_shapes(self, batch: TensorDictBase) -> None:
        keys = self.tensor_keys
        advantage, target = batch.get(keys.advantage), batch.get(keys.value_target)
        if not advantage.ndim or advantage.shape[-1] != 1 or advantage.shape != target.shape:
            raise ValueError(
                f"{keys.advantage!r} and {keys.value_target!r} must both be [*B, 1], got "
                f"{list(advantage.shape)} and {list(target.shape)}."
            )

    @property
    def _detached_critic(self) -> ParameterSets:
        return ParameterSets(self.critic_network_params.detach())

    def _critic_terms(self, batch: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        """Part 1: the critic's loss ``[*B]`` on the value targets."""
        states = batch.select(*self.critic_network.in_keys, strict=False)
        params = self._trained_critics.params
        with params.to_module(self.critic_network, preserve_module_state=False):
            written = self.critic_network(states)
        key = self.tensor_keys.value
        value = written.get(key)
        target = batch.get(self.tensor_keys.value_target).detach()  # a target is not trained
        if value.shape != target.shape:
            raise ValueError(
                f"the critic must write {key!r} as [*B, 1] = {list(target.shape)}, got "
                f"{list(value.shape)}."
            )
        loss = distance_loss(value, target, self.loss_critic_type).squeeze(-1)
        return self.critic_coeff * loss, {"state_value": value.detach().squeeze(-1)}

    def _policy(self, batch: TensorDictBase, actor: ParameterSets) -> d.Distribution:
        states = batch.select(*self.actor_network.in_keys)
        with actor.params.to_module(self.actor_network, preserve_module_state=False):
            return self.actor_network.get_dist(states)

    @torch.no_grad()
    def _reference_policy(self, batch: TensorDictBase) -> d.Distribution:
        return self._policy(batch, self._reference_actor)

    def _action(self, batch: TensorDictBase, policy: d.Distribution) -> Tensor:
        key = self.tensor_keys.action
        action = batch.get(key)
        checks.require_action_shape(key, action.shape, tuple(action_shape(policy)))
        # TorchRL's one-hot spec draws booleans, its one-hot distribution refuses them.
        return action.long() if action.dtype == torch.bool else action


def _is_next(key: NestedKey) -> bool:
    return isinstance(key, tuple) and key[0] == "next"
