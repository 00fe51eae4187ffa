"""MPO for discrete actions: every expectation over actions is exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModule
from torch import Tensor

from mpo_torchrl.critic import EnumeratedCritic
from mpo_torchrl.critic.scalar import LossFunction
from mpo_torchrl.dual import CategoricalTemperature, KLMultiplier
from mpo_torchrl.dual.multiplier import Parametrization
from mpo_torchrl.e_step import EnumeratedEStep
from mpo_torchrl.functional import categorical_kl, effective_sample_size
from mpo_torchrl.loss import checks
from mpo_torchrl.loss.categorical_policy import CategoricalPolicy, index_of
from mpo_torchrl.loss.improvement import ImprovementLoss
from mpo_torchrl.loss.networks import next_key
from mpo_torchrl.loss.schedule import bound
from mpo_torchrl.m_step import CategoricalMStep, Fit
from mpo_torchrl.memory import split
from mpo_torchrl.stateless import ParameterSets


class DiscreteMPOLoss(ImprovementLoss):
    r"""TorchRL implementation of the MPO loss for discrete actions.

    Presented in "Maximum a Posteriori Policy Optimisation" https://arxiv.org/abs/1806.06920.
    Takes the very modules that :class:`~torchrl.objectives.DiscreteSACLoss` takes. Nothing is
    sampled: the E-step weighs every action, the value of a state is an exact mean.

    .. math::
        \ell_Q &= \textstyle\sum_c d\big(Q_c(s)_a,\, r + \gamma V(s')\big), \quad
        V(s') = \sum_a \bar\pi(a \mid s') \min_c \bar Q_c(s')_a \\
        w_a &\propto \bar\pi(a \mid s)\, e^{\min_c Q_c(s)_a / \eta} \\
        \ell_\eta &= \eta \epsilon
        + \eta \log \textstyle\sum_a \bar\pi(a \mid s)\, e^{Q_a / \eta} \\
        \ell_\pi &= -\textstyle\sum_a w_a \log \pi(a \mid s) + \alpha\, \mathrm{KL}, \quad
        \ell_\alpha = \alpha (\epsilon_\pi - \mathrm{KL}), \quad
        \mathrm{KL} = \mathrm{KL}(\bar\pi \Vert \pi)

    Actions may be one-hot (``OneHotCategorical``) or whole numbers (``Categorical``), and some
    may be masked (``MaskedOneHotCategorical``, ``MaskedCategorical``): a masked action has no
    weight, no probability and no say in the value of a state.

    Args:
        actor_network (ProbabilisticTensorDictSequential): stochastic actor whose distribution
            has ``logits``.
        qvalue_network (TensorDictModule, list of TensorDictModule or EnumeratedCritic): the
            critic, which reads the observation and writes the value of each action under
            ``"action_value"``, ``[*B, A]``. A single module is expanded ``num_qvalue_nets``
            times and drawn anew, as with :class:`~mpo_torchrl.MPOLoss`.

    Keyword Args:
        num_qvalue_nets (int, optional): number of critics; 2 by default, the length of a list.
        e_step_critic (str): critics that score the E-step, ``"online"`` or ``"target"``.
        epsilon (float): bound on the KL of the E-step, nats.
        epsilon_policy (float): bound on the KL of the policy, nats.
        init_temperature (float): the temperature at the start, unit of return.
        init_alpha_policy (float): the multiplier of ``epsilon_policy`` at the start.
        parametrization (str): how multipliers stay positive, ``"softplus"`` or ``"exp"``.
        delay_actor (bool): improve a target policy that an updater moves; else the detached
            current policy.
        delay_qvalue (bool): bootstrap from target critics; else from the current ones.
        loss_function (str): of the critic, ``"l2"``, ``"l1"`` or ``"smooth_l1"``.
        reduction (str): ``"mean"``, ``"sum"`` or ``"none"``.
        separate_losses (bool): keep the critic's loss from training what it shares with the
            actor.
        deactivate_vmap (bool): loop over the critics on every device; on a CPU they always are.
        use_prioritized_weights (str or bool): weigh the critic's loss by the
            ``priority_weight`` of the batch, if it has one (``"auto"``).
        scalar_output_mode (str, optional): with ``reduction="none"`` the diagnostics are left
            out (``"exclude"``) or stored as non-tensor data (``"non_tensor"``).
        e_step (EnumeratedEStep, optional): an own part 2 with its temperature.
        m_step (CategoricalMStep, optional): an own part 4 with its multiplier.

    Raises:
        TypeError: if the actor is deterministic, a network is no TensorDict module, or a part is
            that of another loss.
        ValueError: if an argument is out of its range, or set although a part brings its own, or
            the policy is not discrete.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl.data import OneHot
        >>> from mpo_torchrl import DiscreteMPOLoss
        >>> from mpo_torchrl.modules import make_discrete_actor, make_discrete_critics
        >>> spec = OneHot(2)
        >>> loss = DiscreteMPOLoss(make_discrete_actor(4, spec), make_discrete_critics(4, spec))
        >>> _ = loss.make_value_estimator(gamma=0.99)
        >>> batch = TensorDict(observation=torch.randn(5, 4), action=spec.rand((5,)), batch_size=5)
        >>> batch["next"] = TensorDict(
        ...     observation=torch.randn(5, 4),
        ...     reward=torch.randn(5, 1),
        ...     done=torch.zeros(5, 1, dtype=torch.bool),
        ...     terminated=torch.zeros(5, 1, dtype=torch.bool),
        ...     batch_size=5,
        ... )
        >>> losses = loss(batch)
        >>> sum(value for key, value in losses.items() if key.startswith("loss")).backward()
        >>> sorted(key for key in losses.keys() if key.startswith("loss"))
        ['loss_actor', 'loss_alpha', 'loss_qvalue', 'loss_temperature']
    """

    critic: EnumeratedCritic
    _policy: CategoricalPolicy
    _e_step: EnumeratedEStep
    _m_step: CategoricalMStep

    epsilon = bound("temperature")
    epsilon_policy = bound("alpha_policy")

    def __init__(
        self,
        actor_network: ProbabilisticTensorDictSequential,
        qvalue_network: TensorDictModule | Sequence[TensorDictModule] | EnumeratedCritic,
        *,
        num_qvalue_nets: int | None = None,
        e_step_critic: Literal["online", "target"] = "online",
        epsilon: float = 0.1,
        epsilon_policy: float = 0.01,
        init_temperature: float = 1.0,
        init_alpha_policy: float = 1.0,
        parametrization: Parametrization = "softplus",
        delay_actor: bool = True,
        delay_qvalue: bool = True,
        loss_function: LossFunction = "l2",
        reduction: Literal["none", "mean", "sum"] = "mean",
        separate_losses: bool = False,
        deactivate_vmap: bool = False,
        use_prioritized_weights: str | bool = "auto",
        scalar_output_mode: Literal["exclude", "non_tensor"] | None = None,
        e_step: EnumeratedEStep | None = None,
        m_step: CategoricalMStep | None = None,
    ) -> None:
        arguments = dict(locals())
        super().__init__()
        self._set_output(reduction, scalar_output_mode, use_prioritized_weights)
        checks.require_choice("e_step_critic", e_step_critic, ("online", "target"))
        checks.require_e_step(e_step, (EnumeratedEStep,), ())
        checks.require_m_step(m_step, (CategoricalMStep,))
        critic = qvalue_network
        if isinstance(critic, EnumeratedCritic):
            checks.require_default(DiscreteMPOLoss, "critic", "loss_function", loss_function)
        else:
            critic = EnumeratedCritic(qvalue_network, loss_function=loss_function)
        self.__dict__["_policy"] = CategoricalPolicy(actor_network)  # raises if not discrete
        self._wire_networks(
            critic,
            actor_network,
            num_qvalue_nets,
            delay_actor,
            delay_qvalue,
            separate_losses,
            deactivate_vmap,
        )
        if split(actor_network)[0] or self.critic.ensemble.memory is not None:
            raise ValueError(
                "DiscreteMPOLoss cannot train recurrent networks; let the observation hold the "
                "past, for example with torchrl's CatFrames."
            )
        checks.require_left_out(DiscreteMPOLoss, arguments)
        form: Any = {"parametrization": parametrization}
        e_step = e_step or EnumeratedEStep(
            CategoricalTemperature(epsilon, init_temperature, **form)
        )
        m_step = m_step or CategoricalMStep(
            KLMultiplier(epsilon_policy, init_alpha_policy, name="epsilon_policy", **form)
        )
        self.__dict__["_e_step"] = e_step
        self._wire_multipliers({"temperature": e_step.temperature}, m_step)
        self.e_step_critic = e_step_critic
        self._default_value_estimator()  # at once, so that every state_dict has its discount

    @property
    def _is_action_index(self) -> bool:
        return not self._policy.is_one_hot

    # -- the steps ------------------------------------------------------------------------

    def _score_all(self, states: TensorDictBase, params: ParameterSets, like: Tensor) -> Tensor:
        """Pessimistic values of every action: ``[*B, A]``, as the logits ``like``."""
        prediction = self.critic.predict(
            states, params, like.shape[:-1], vmap_randomness=self._vmap_mode(like)
        )
        if prediction.shape[-1] != like.shape[-1]:
            raise ValueError(
                f"the critic values {prediction.shape[-1]} actions and the policy has "
                f"{like.shape[-1]}; give both one output an action."
            )
        return self.critic.value(prediction)

    @torch.no_grad()
    def _value_target(self, tensordict: TensorDictBase, improved: TensorDictBase | None) -> Tensor:
        states = tensordict.get("next")
        logits = self._policy(states, self._reference_actor)
        value = self._score_all(states, self._target_critics, logits)
        self._require_outcome(tensordict, logits.shape[:-1])
        next_value = (logits.exp() * value).sum(-1, keepdim=True)  # [*B, 1]
        # Where a game has ended no action may be left, so that the policy there is no number.
        keys = self.tensor_keys
        done = tensordict.get(next_key(keys.done))
        terminated = tensordict.get(next_key(keys.terminated), done)
        next_value = next_value.masked_fill(terminated, 0.0)
        target = self.value_estimator.value_estimate(tensordict, next_value=next_value)
        return target.squeeze(-1)

    @torch.no_grad()
    def _improve(self, tensordict: TensorDictBase) -> tuple[TensorDictBase, Tensor]:
        logits = self._policy(tensordict, self._reference_actor)
        online = self.e_step_critic == "online"
        params = self._trained_critics if online else self._target_critics
        value = self._score_all(tensordict, params, logits)
        return self._e_step(logits, value, self._given(tensordict)), logits

    def _temperature_terms(self, improved: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        logits, weight = improved.get("logits"), improved.get("weight")
        loss = self._e_step.temperature.loss(improved.get("state_action_value"), logits)
        return loss, {
            "temperature": improved.get("temperature").amax(),
            "kl_e_step": categorical_kl(weight.log(), logits),
            "effective_sample_size": effective_sample_size(weight),
        }

    def _fit(self, tensordict: TensorDictBase, improved: TensorDictBase, reference: Any) -> Fit:
        return self._m_step(improved, self._policy(tensordict, self._online_actor))

    def _qvalue_terms(
        self, tensordict: TensorDictBase, target: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        values = self.critic.predict(
            tensordict, self._trained_critics, target.shape, vmap_randomness=self._vmap_mode(target)
        )  # [C, *B, A]
        action = tensordict.get(self.tensor_keys.action)
        index = index_of(action, self._policy.is_one_hot, target.shape, values.shape[-1])
        taken = values.gather(-1, index.expand(*values.shape[:-1], 1)).squeeze(-1)  # [C, *B]
        return self._qvalue_terms_of(taken, tensordict, target)
