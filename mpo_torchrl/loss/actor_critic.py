"""What the off-policy losses share: an actor and an ensemble of critics with their targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import (
    ProbabilisticTensorDictSequential,
    TensorDictModule,
    TensorDictParams,
    composite_lp_aggregate,
)
from torch import Tensor
from torchrl.objectives.utils import ValueEstimators, _cache_values, dispatch_value_estimator
from torchrl.objectives.value import ValueEstimatorBase

from mpo_torchrl.critic import Critic, RetraceEstimator
from mpo_torchrl.loss import checks
from mpo_torchrl.loss.actor import ActorLoss
from mpo_torchrl.loss.agents import count_batch_dims, share_among_agents
from mpo_torchrl.loss.heads import Heads
from mpo_torchrl.loss.memories import Memories
from mpo_torchrl.loss.networks import (
    count_critics,
    inputs_of,
    keep_inner_batches,
    next_key,
    require_shapes,
    shared_parameters,
)
from mpo_torchrl.memory import IS_INIT
from mpo_torchrl.stateless import ParameterSets


class ActorCriticLoss(ActorLoss):
    """A loss with an actor, an ensemble of critics, and a target of each.

    Subclasses call :meth:`_wire_networks` at construction and then compute critic targets and
    policy losses with :meth:`_predict` and :meth:`_qvalue_terms`.
    """

    @dataclass
    class _AcceptedKeys:
        """The configurable TensorDict keys and their defaults, set with ``set_keys``.

        Attributes:
            action: the action taken, a list of keys if it has several heads. Defaults to what
                the actor samples.
            value: where the value of the next state is put for the value estimator.
            state_action_value: where the critic writes.
            log_prob: the action's log-probability when it was taken; only Retrace reads it.
            priority: where the temporal-difference error of each transition is written.
            reward, done, terminated: read under ``"next"``.
            priority_weight: importance weights of prioritized replay.
            e_step: the nested TensorDict of the E-step.
        """

        action: NestedKey | list[NestedKey] = "action"
        value: NestedKey = "state_value"
        state_action_value: NestedKey = "state_action_value"
        log_prob: NestedKey | None = None
        priority: NestedKey = "td_error"
        reward: NestedKey = "reward"
        done: NestedKey = "done"
        terminated: NestedKey = "terminated"
        priority_weight: NestedKey = "priority_weight"
        e_step: NestedKey = "e_step"

        def __post_init__(self) -> None:
            if self.log_prob is None:
                aggregate = composite_lp_aggregate(nowarn=True)
                self.log_prob = "sample_log_prob" if aggregate else "action_log_prob"

    default_keys = _AcceptedKeys
    tensor_keys: _AcceptedKeys
    default_value_estimator = ValueEstimators.TD0
    SUPPORTED_VALUE_ESTIMATORS: tuple[Any, ...] = (
        ValueEstimators.TD0,
        ValueEstimators.TD1,
        ValueEstimators.TDLambda,
    )

    qvalue_network: TensorDictModule
    qvalue_network_params: TensorDictParams
    target_qvalue_network_params: TensorDictParams
    network_names = ("actor_network", "qvalue_network")
    critic_name = "qvalue_network"
    critic: Critic
    _value_estimator: ValueEstimatorBase
    value_type: Any
    _heads: Heads | None = None
    _memories: Memories | None = None

    def _wire_networks(
        self,
        critic: Critic,
        actor_network: ProbabilisticTensorDictSequential,
        num_qvalue_nets: int | None,
        delay_actor: bool,
        delay_qvalue: bool,
        separate_losses: bool,
        deactivate_vmap: bool,
    ) -> None:
        # In __dict__, as LossModule keeps networks: a part is no second owner of parameters.
        self.__dict__["critic"] = critic
        action, *further = actor_network.dist_sample_keys
        self.set_keys(
            action=[action, *further] if further else action, state_action_value=critic.value_key
        )
        self.delay_actor, self.delay_qvalue = delay_actor, delay_qvalue
        self.separate_losses = separate_losses
        self.deactivate_vmap = deactivate_vmap
        self.convert_to_functional(actor_network, "actor_network", create_target_params=delay_actor)
        checks.require_own_features(critic.in_keys, actor_network.out_keys, self._action_keys)
        networks = list(critic.networks)
        self.num_qvalue_nets = count_critics(len(networks), num_qvalue_nets, is_list=critic.is_list)
        if self.num_qvalue_nets > 1:  # to be stacked here and now
            require_shapes("qvalue_network", [p for net in networks for p in net.parameters()])
        self.convert_to_functional(
            networks if len(networks) > 1 else networks[0],
            "qvalue_network",
            # Expanding even once would cut a single critic off from the user's module.
            self.num_qvalue_nets if self.num_qvalue_nets > 1 else None,
            create_target_params=delay_qvalue,
            compare_against=list(actor_network.parameters()) if separate_losses else None,
        )
        if len(networks) > 1:
            # Not as an attribute: to ask for a target warns that nothing moves it yet.
            targets = [self._modules["target_qvalue_network_params"]] if delay_qvalue else []
            keep_inner_batches(networks[0], self.qvalue_network_params, *targets)
        # An expanded critic is drawn anew: it shares nothing unless the losses are separate.
        drawn_anew = self.num_qvalue_nets > len(networks) and not separate_losses
        self._shared = {} if drawn_anew else shared_parameters(networks, self.actor_network_params)
        like = next(self.qvalue_network_params.parameters())
        for name, buffer in critic.named_buffers(recurse=False):  # such as a support
            buffer = buffer.to(device=like.device, dtype=like.dtype)
            self.register_buffer(f"critic_{name}", buffer)
        self._tie_parameters()

    def _tie_parameters(self) -> None:
        # The part computes with what moves and is saved with the loss.
        for name, _ in self.critic.named_buffers(recurse=False):
            setattr(self.critic, name, self._buffers[f"critic_{name}"])
        super()._tie_parameters()

    def make_value_estimator(self, value_type: Any = None, **hyperparams: Any) -> ActorCriticLoss:
        """Chooses how rewards and next values become targets: TD(0), TD(1), TD(lambda), Retrace.

        Raises:
            ValueError: if the critic cannot make its target with that estimator.
            NotImplementedError: if no critic can.
        """
        previous = self._value_estimator, self.value_type
        value_type, hp = self._prepare_value_estimator_kwargs(value_type, **hyperparams)
        if value_type is not None:
            dispatch_value_estimator(
                self,
                value_type,
                supported=self.SUPPORTED_VALUE_ESTIMATORS,
                value_network=None,
                deactivate_vmap=self.deactivate_vmap,
                **hp,
            )
        try:
            if self._needs_traces and self._heads is not None:
                raise ValueError(
                    "Retrace needs the log-probability of one action, the policy has the heads "
                    f"{list(self._heads.spaces)}; take TD(0), TD(1) or TD(lambda)."
                )
            self.critic.require_estimator(self._value_estimator)
        except ValueError:
            self._value_estimator, self.value_type = previous
            raise
        self._forward_value_estimator_keys()
        return self

    @property
    def _needs_traces(self) -> bool:
        """Whether targets follow the actions taken over several steps."""
        return isinstance(self._value_estimator, RetraceEstimator)

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        if self._value_estimator is not None:
            keys = self.tensor_keys
            self._value_estimator.set_keys(
                value=keys.value, reward=keys.reward, done=keys.done, terminated=keys.terminated
            )
            if self._needs_traces:
                self._value_estimator.set_keys(
                    sample_log_prob=keys.log_prob, state_action_value=keys.state_action_value
                )
        self.critic.value_key = self.tensor_keys.state_action_value
        self._in_keys = None  # made anew from the new names

    def _state_keys(self) -> list[NestedKey]:
        """What actor and critics read of a state."""
        if self.critic.reads_action:
            checks.require_action_read(self.critic.in_keys, self._action_keys)
        made = {*self._action_keys, *self.actor_network.out_keys}
        states = inputs_of(self.actor_network)
        return states + [key for key in self.critic.in_keys if key not in made]

    def _make_in_keys(self) -> list[NestedKey]:
        keys = self.tensor_keys
        states = self._state_keys()
        # What is remembered after a step follows from the step itself.
        remembered = self._memories.own_keys if self._memories is not None else set()
        following = [key for key in states if key not in remembered]
        following += [keys.reward, keys.done, keys.terminated]
        if remembered:
            states.append(IS_INIT)
        entries = [*states, *self._action_keys, *[next_key(key) for key in following]]
        if self._needs_traces:
            entries.append(keys.log_prob)
        return list(dict.fromkeys(entries))

    def _checked(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The batch to compute with: nothing is missing, and nothing masked does harm."""
        terminated = next_key(self.tensor_keys.terminated)
        checks.require_keys(tensordict, [key for key in self.in_keys if key != terminated])
        checks.require_flags(tensordict, [next_key(self.tensor_keys.done), terminated])
        batch = self._prepared(tensordict)
        self.require_first_finite(batch)
        keys = self.tensor_keys
        team = [next_key(key) for key in (keys.reward, keys.done, keys.terminated)]
        team.append(self._value_estimator.tensor_keys.steps_to_next_obs)
        return share_among_agents(
            batch, keys.action, team, keys.priority_weight, self._is_action_index
        )

    @property
    def _is_action_index(self) -> bool:
        """Whether actions are whole numbers, without a last dimension."""
        return False

    def _optional_keys(self) -> list[NestedKey]:
        return [self.tensor_keys.priority_weight] if self.use_prioritized_weights else []

    def _prepared(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The batch to compute with: nothing masked does harm, recurrent networks remember."""
        self._require_sized_layers()
        self._follow_new_data()
        batch = self._without_masked(tensordict)
        if self._memories is None:
            return batch
        actors = [self._online_actor, self._reference_actor]
        critics = [self._trained_critics, self._target_critics]
        return self._memories.prepare(batch, self.tensor_keys.done, actors, critics)

    def _learned(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The steps of a batch that are learned from."""
        return tensordict if self._memories is None else self._memories.learned(tensordict)

    @property
    def _action_keys(self) -> list[NestedKey]:
        """Where the action is: one key, or one a head."""
        keys = self.tensor_keys.action
        return keys if isinstance(keys, list) else [keys]

    def _taken(self, tensordict: TensorDictBase) -> Tensor:
        """The actions of a batch, ``[*B, A]``; those of several heads side by side."""
        if self._heads is None:
            return tensordict.get(self.tensor_keys.action)
        return self._heads.taken(tensordict, self._action_keys)

    def _entries(self, action: Tensor) -> dict[NestedKey, Tensor]:
        """Actions ``[..., A]`` as the critics read them."""
        keys = self._action_keys
        return {keys[0]: action} if self._heads is None else self._heads.split(action, keys)

    @property
    @_cache_values
    def _target_critics(self) -> ParameterSets:
        return (
            ParameterSets(self.target_qvalue_network_params, role=f"target_{self.critic_name}")
            if self.delay_qvalue
            else self._trained_critics
        )

    def _predict(
        self,
        states: TensorDictBase,
        action: Tensor,
        params: ParameterSets,
        hidden_dtype: torch.dtype | None = None,
    ) -> Tensor:
        """What the critics say of ``N`` actions a state: ``[*B, N, A]`` to ``[C, *B, N, ...]``.

        Of agents, ``[*B, n, N, A]`` to ``[C, *B, n, N, ...]``; the critics see ``N`` actions of
        the whole team, ``[*B, N, n, A]``.
        """
        agents_end = action.ndim - 2
        batch = count_batch_dims(self.tensor_keys.action, states.batch_dims, agents_end)
        action = action.movedim(agents_end, batch)

        def of_each_sample(state: Tensor) -> Tensor:
            state = state.unsqueeze(batch)
            return state.expand(*action.shape[: batch + 1], *state.shape[batch + 1 :])

        inputs = self._entries(action)
        for key in self.critic.in_keys:
            if key not in inputs:
                inputs[key] = of_each_sample(states.get(key))
        sampled = action.shape[:-1]
        recalled = self.critic.ensemble.recall(states, params)
        recalled = [own.apply(of_each_sample, batch_size=sampled) for own in recalled]
        # Where a network may count on the dimensions of a batch, N goes into the last of them.
        folds = batch > 0 and not self.critic.ensemble.is_row_by_row
        if folds:
            rows = (*sampled[: batch - 1], sampled[batch - 1] * sampled[batch])
            batch_size = torch.Size([*rows, *sampled[batch + 1 :]])

            def fold(entry: Tensor) -> Tensor:
                return entry.flatten(batch - 1, batch)

            inputs = {key: fold(entry) for key, entry in inputs.items()}
            recalled = [own.apply(fold, batch_size=batch_size) for own in recalled]
        prediction = self.critic.predict(
            inputs,
            params,
            batch_size if folds else sampled,
            recalled=recalled,
            hidden_dtype=hidden_dtype,
            vmap_randomness=self._vmap_mode(action),
        )
        if folds:
            prediction = prediction.unflatten(batch, sampled[batch - 1 : batch + 1])
        return prediction.movedim(1 + batch, 1 + agents_end)

    def _qvalue_terms(
        self, tensordict: TensorDictBase, target: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The critic's reduced loss on its target, its errors and its values ``[*B]``."""
        batch = tensordict.get(next_key(self.tensor_keys.reward)).shape[:-1]
        prediction = self.critic.predict(
            tensordict,
            self._trained_critics,
            batch,
            recalled=self.critic.ensemble.recall(tensordict, self._trained_critics),
            vmap_randomness=self._vmap_mode(target),
        )  # [C, *B, ...]
        return self._qvalue_terms_of(prediction, tensordict, target)

    def _qvalue_terms_of(
        self, prediction: Tensor, tensordict: TensorDictBase, target: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        loss = self.critic.loss(prediction, target)  # [*B]
        weight = self._priority_weight(tensordict)
        if weight is not None:
            key = self.tensor_keys.priority_weight
            weight = checks.one_per_state(key, weight, loss.shape)
        loss = self._reducer(tensordict)(loss, weights=weight)
        td_error = self.critic.td_error(prediction, target)
        q_value = self.critic.mean(prediction.detach()).mean(0)
        return loss, {"td_error": td_error, "q_value": q_value}

    def _write_priority(self, tensordict: TensorDictBase, readings: dict[str, Tensor]) -> None:
        td_error = readings["td_error"]
        if self._memories is not None and (burn_in := self._memories.burn_in):
            # A sequence may be drawn by the priority of its first step, which only prepares for
            # those that are learned from: it is as urgent as the most urgent of them.
            largest = td_error.amax(-1, keepdim=True)
            td_error = torch.cat([largest.expand(*td_error.shape[:-1], burn_in), td_error], -1)
        # [*B], or [*B, 1] in a batch that counts the last dimension of its entries as its own.
        surplus = (1,) * (tensordict.batch_dims - td_error.ndim)
        tensordict.set(self.tensor_keys.priority, td_error.reshape(td_error.shape + surplus))

    def _vmap_mode(self, like: Tensor) -> str | None:
        ensemble = self.critic.ensemble
        loop = self.deactivate_vmap or ensemble.is_stateless or ensemble.memory is not None
        return None if loop or like.device.type == "cpu" else self.vmap_randomness

    def _make_vmap(self) -> None:
        """Nothing to prepare: ``set_vmap_randomness`` acts at the next call."""
