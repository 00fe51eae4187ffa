"""V-MPO: the on-policy member of the family, wired together."""

from __future__ import annotations

from typing import Any, Literal

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import (
    ProbabilisticTensorDictSequential,
    TensorDictModule,
    dispatch,
)
from torch import Tensor, nn
from torch import distributions as d
from torchrl.data import Composite, TensorSpec

from mpo_torchrl.critic.scalar import LossFunction
from mpo_torchrl.distributions import per_state
from mpo_torchrl.dual import Temperature
from mpo_torchrl.dual.multiplier import Parametrization
from mpo_torchrl.e_step import AdvantageEStep
from mpo_torchrl.e_step.sampled import over_all
from mpo_torchrl.functional import effective_sample_size
from mpo_torchrl.loss import checks
from mpo_torchrl.loss.action_space import ActionSpace, known_spec
from mpo_torchrl.loss.actor_value import ActorValueLoss
from mpo_torchrl.loss.networks import sampling_module
from mpo_torchrl.loss.parts import make_multipliers
from mpo_torchrl.loss.schedule import bound
from mpo_torchrl.m_step import Fit, LikelihoodMStep


class VMPOLoss(ActorValueLoss):
    r"""TorchRL implementation of the V-MPO loss, on-policy, for any action space.

    Presented in "V-MPO: On-Policy Maximum a Posteriori Policy Optimization for Discrete and
    Continuous Control" https://arxiv.org/abs/1909.12238. Takes the very modules that
    :class:`~torchrl.objectives.A2CLoss` takes and goes where it goes.

    .. math::
        \ell_V &= d\big(V(s), G\big), \qquad
        w_i = \frac{e^{A_i / \eta}}{\sum_{j \in \mathrm{top}\,k} e^{A_j / \eta}} \\
        \ell_\eta &= \eta \epsilon + \eta \log \tfrac1K
        \textstyle\sum_{i \in \mathrm{top}\,k} e^{A_i / \eta} \\
        \ell_\pi &= -\textstyle\sum_i w_i \log \pi(a_i \mid s_i)
        + \operatorname{mean}_i \textstyle\sum_d \alpha_d \mathrm{KL}_d, \quad
        \ell_\alpha = \operatorname{mean}_i
        \textstyle\sum_d \alpha_d (\epsilon_d - \mathrm{KL}_d)

    The best half of the *whole* batch is learnt from: give it batches of many steps. Advantages
    and value targets are read from the batch, where a value estimator such as
    :class:`~torchrl.objectives.value.GAE` put them; where they are missing the loss computes
    them, which needs ``[*B, T]`` with time last.

    The KLs are to the policy that collected the batch: the target actor. Move the target to the
    actor when the collector gets the actor's parameters, for instance with
    ``PeriodicUpdate(loss, period=1).step()`` before each new batch.

    A Gaussian policy, squashed or not, has separate bounds on mean and stddev; a categorical one,
    one-hot or not, and any other has one bound ``epsilon_policy``.

    Args:
        actor_network (ProbabilisticTensorDictSequential): stochastic actor.
        critic_network (TensorDictModule): writes the value of the state, ``"state_value"``.

    Keyword Args:
        top_k_fraction (float): share of the batch, the best, that is learnt from.
        epsilon (float): bound on the KL of the E-step, nats.
        epsilon_mean (float): bound on the KL of the means (each dimension's), nats.
        epsilon_stddev (float): bound on the KL of the stddevs (each dimension's), nats.
        epsilon_policy (float): bound on the KL of policies that are not Gaussian, nats.
        per_dim_constraining (bool): bound each action dimension, or their sum.
        init_temperature (float): the temperature at the start, unit of return.
        init_alpha_mean (float): the multiplier of ``epsilon_mean`` at the start.
        init_alpha_stddev (float): the multiplier of ``epsilon_stddev`` at the start.
        init_alpha_policy (float): the multiplier of ``epsilon_policy`` at the start.
        parametrization (str): how multipliers stay positive, ``"softplus"`` or ``"exp"``.
        ignore_restarts (bool): learn nothing from the action of a step that begins ``done``: an
            environment that resets itself only with the next step ignores that action. A
            ``restarting_weight`` in the batch comes first.
        max_importance_weight (float, optional): weigh each step by how much likelier its action
            is for the target policy than it was when it was taken (``action_log_prob``), at most
            this. ``None`` for batches of the target policy itself. An ``importance_weight`` in
            the batch comes first.
        delay_actor (bool): bound the KL to a target policy that an updater moves; else to the
            detached current policy.
        loss_critic_type (str): ``"l2"``, ``"l1"`` or ``"smooth_l1"``.
        critic_coeff (float): factor of ``loss_critic``.
        reduction (str): ``"mean"``, ``"sum"`` or ``"none"``. With ``"none"`` the share of each
            state, ``[*B]``, whose mean is the loss.
        action_spec (TensorSpec, optional): the action's spec, if the actor does not know it.
        separate_losses (bool): keep the critic's loss from training what it shares with the
            actor.
        scalar_output_mode (str, optional): with ``reduction="none"`` the diagnostics are left
            out (``"exclude"``) or stored as non-tensor data (``"non_tensor"``).
        e_step (AdvantageEStep, optional): an own part 2 with its temperature.
        m_step (LikelihoodMStep, optional): an own part 4 with its multipliers.

    Raises:
        TypeError: if the actor is deterministic, the critic is no TensorDict module, or a part is
            that of another loss.
        ValueError: if an argument is out of its range, or set although ``e_step`` or ``m_step``
            brings its own, or the policy is a composite one.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl.data import OneHot
        >>> from mpo_torchrl import VMPOLoss
        >>> from mpo_torchrl.modules import make_discrete_actor, make_value_network
        >>> loss = VMPOLoss(make_discrete_actor(4, OneHot(2)), make_value_network(4))
        >>> _ = loss.make_value_estimator(gamma=0.99, lmbda=0.95)
        >>> batch = TensorDict(observation=torch.randn(8, 4), batch_size=8)
        >>> batch["action"] = OneHot(2).rand((8,))
        >>> batch["next"] = TensorDict(
        ...     observation=torch.randn(8, 4),
        ...     reward=torch.randn(8, 1),
        ...     done=torch.zeros(8, 1, dtype=torch.bool),
        ...     terminated=torch.zeros(8, 1, dtype=torch.bool),
        ...     batch_size=8,
        ... )
        >>> losses = loss(batch)
        >>> sum(value for key, value in losses.items() if key.startswith("loss")).backward()
        >>> sorted(key for key in losses.keys() if key.startswith("loss"))
        ['loss_actor', 'loss_alpha', 'loss_critic', 'loss_temperature']
    """

    _e_step: AdvantageEStep
    _m_step: LikelihoodMStep

    epsilon = bound("temperature")
    epsilon_mean = bound("alpha_mean")
    epsilon_stddev = bound("alpha_stddev")
    epsilon_policy = bound("alpha_policy")

    def __init__(
        self,
        actor_network: ProbabilisticTensorDictSequential,
        critic_network: TensorDictModule,
        *,
        top_k_fraction: float = 0.5,
        epsilon: float = 0.1,
        epsilon_mean: float = 0.02,
        epsilon_stddev: float = 1e-3,
        epsilon_policy: float = 0.02,
        per_dim_constraining: bool = True,
        init_temperature: float = 1.0,
        init_alpha_mean: float = 1.0,
        init_alpha_stddev: float = 1.0,
        init_alpha_policy: float = 1.0,
        parametrization: Parametrization = "softplus",
        ignore_restarts: bool = False,
        max_importance_weight: float | None = None,
        delay_actor: bool = True,
        loss_critic_type: LossFunction = "l2",
        critic_coeff: float = 1.0,
        reduction: Literal["none", "mean", "sum"] = "mean",
        action_spec: TensorSpec | None = None,
        separate_losses: bool = False,
        scalar_output_mode: Literal["exclude", "non_tensor"] | None = None,
        e_step: AdvantageEStep | None = None,
        m_step: LikelihoodMStep | None = None,
    ) -> None:
        arguments = dict(locals())
        super().__init__()
        self._set_output(reduction, scalar_output_mode, use_prioritized_weights=False)
        checks.require_choice("loss_critic_type", loss_critic_type, ("l2", "l1", "smooth_l1"))
        checks.require_e_step(e_step, (AdvantageEStep,), ("temperature_loss", "kl"))
        checks.require_m_step(m_step, (LikelihoodMStep,))
        if max_importance_weight is not None and not max_importance_weight > 0:
            raise ValueError(
                f"max_importance_weight must be positive or None, got {max_importance_weight}."
            )
        self.loss_critic_type, self.critic_coeff = loss_critic_type, critic_coeff
        self.ignore_restarts = ignore_restarts
        self.max_importance_weight = max_importance_weight
        self._wire_networks(actor_network, critic_network, delay_actor, separate_losses)
        checks.require_left_out(VMPOLoss, arguments)
        e_step = e_step or AdvantageEStep(
            Temperature(epsilon, init_temperature, parametrization=parametrization),
            top_k_fraction=top_k_fraction,
        )
        m_step = m_step or LikelihoodMStep(
            make_multipliers(
                _continuous_space(actor_network, self.tensor_keys.action, action_spec),
                {"mean": epsilon_mean, "stddev": epsilon_stddev, "policy": epsilon_policy},
                {"mean": init_alpha_mean, "stddev": init_alpha_stddev, "policy": init_alpha_policy},
                per_dim_constraining,
                parametrization,
            )
        )
        self.__dict__["_e_step"] = e_step
        self._wire_multipliers({"temperature": e_step.temperature}, m_step)
        self._default_value_estimator()  # at once, so that every state_dict has its discount

    def _make_out_keys(self) -> list[NestedKey]:
        keys = ["loss_critic", "loss_temperature", "loss_actor", "loss_alpha"]
        if self.reports_scalars:
            keys += [*self.multipliers(), "kl_e_step", "effective_sample_size"]
            keys += [f"kl_{name}" for name in self._m_step.multipliers]
            keys += [*self._m_step.readings, "state_value"]
        return keys

    # -- the loss -------------------------------------------------------------------------

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Computes every loss; the batch stays as it is.

        Args:
            tensordict (TensorDictBase): ``[*B]`` steps with the entries of :attr:`in_keys`. With
                an advantage and a value target in it, what stands under ``"next"`` is not read.

        Returns:
            TensorDictBase: the entries of :attr:`out_keys`. Train on the sum of those that
            start with ``"loss"``; the others are detached.

        Raises:
            KeyError: if an entry is missing.
            ValueError: if the batch is empty, a shape is wrong, or the first batch holds
                numbers that are not finite.
        """
        batch = self._with_advantage(tensordict)
        reduce = self._reducer(tensordict)
        loss_critic, readings = self._critic_terms(batch)
        reference = self._reference_policy(batch)
        given = self._e_step_inputs(batch, reference)
        loss_temperature, weight, temperature_readings = self._temperature_terms(given)
        fit = self._fit(batch, weight, reference, given["mask"])
        loss_actor, loss_alpha = self._policy_terms(fit)

        losses = {
            "loss_critic": reduce(loss_critic),
            "loss_temperature": reduce(loss_temperature),
            "loss_actor": reduce(loss_actor),
            "loss_alpha": reduce(loss_alpha),
        }
        readings = {**readings, **temperature_readings, **self._fit_readings(fit)}
        output = self._output(losses, readings, reduce)
        self._clear_weakrefs(tensordict, output, *self._parameter_names())
        return output

    # -- the steps ------------------------------------------------------------------------

    def _conditional_keys(self) -> list[NestedKey]:
        weighed = [self.tensor_keys.sample_log_prob] if self.max_importance_weight else []
        return [*weighed, self.tensor_keys.done] if self.ignore_restarts else weighed

    def _further_keys(self, tensordict: TensorDictBase) -> list[NestedKey]:
        return [self.tensor_keys.done] if self._reads_done(tensordict) else []

    def _optional_keys(self) -> list[NestedKey]:
        weighs = self.max_importance_weight is not None
        return [*super()._optional_keys(), *([self.tensor_keys.sample_log_prob] if weighs else [])]

    def _reads_done(self, tensordict: TensorDictBase) -> bool:
        given = tensordict.get(self.tensor_keys.restarting_weight, None) is not None
        return self.ignore_restarts and not given

    @torch.no_grad()
    def _e_step_inputs(
        self, batch: TensorDictBase, reference: d.Distribution
    ) -> dict[str, Tensor | None]:
        """What the E-step weighs, each ``[*B]``: advantages, and what there is beside them."""
        keys = self.tensor_keys
        advantage = batch.get(keys.advantage).squeeze(-1)
        shape = advantage.shape

        def per_step(key: NestedKey, weight: Tensor) -> Tensor:
            return checks.one_per_state(key, weight, shape).to(advantage.dtype)

        restarting = importance = None
        if self._reads_done(batch):
            restarting = per_step(keys.done, ~batch.get(keys.done))
        elif (weight := batch.get(keys.restarting_weight, None)) is not None:
            restarting = per_step(keys.restarting_weight, weight)
        if (weight := batch.get(keys.importance_weight, None)) is not None:
            importance = per_step(keys.importance_weight, weight)
        elif self.max_importance_weight is not None:
            weight = self._importance_weight(batch, reference)
            importance = weight.reshape(shape).to(advantage.dtype)
        if (mask := self._mask(batch)) is not None:
            mask = over_all(mask, shape)
        return {
            "advantage": advantage,
            "restarting_weight": restarting,
            "importance_weight": importance,
            "mask": mask,
        }

    def _importance_weight(self, batch: TensorDictBase, reference: d.Distribution) -> Tensor:
        keys = self.tensor_keys
        assert keys.sample_log_prob is not None
        checks.require_keys(batch, [keys.sample_log_prob])
        batch_dims = batch.get(keys.advantage).ndim - 1
        log_prob = per_state(reference.log_prob(self._action(batch, reference)), batch_dims)
        taken = per_state(batch.get(keys.sample_log_prob), batch_dims)
        ratio = (log_prob - taken).exp()
        return ratio.clamp(max=self.max_importance_weight)

    def _temperature_terms(self, given: dict[str, Any]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Parts 2 and 3: the temperature's loss ``[*B]``, the weights ``[*B]``, diagnostics."""
        weight = self._e_step(**given)
        loss = self._e_step.temperature_loss(**given).expand(weight.shape)
        readings = {
            "temperature": self.temperature().detach(),
            "kl_e_step": self._e_step.kl(**given).expand(weight.shape),
            "effective_sample_size": effective_sample_size(weight.flatten()).expand(weight.shape),
        }
        return loss, weight, readings

    def _fit(
        self,
        batch: TensorDictBase,
        weight: Tensor,
        reference: d.Distribution,
        mask: Tensor | None,
    ) -> Fit:
        """Part 4, per state such that the *mean* over states is the sum under the weights."""
        policy = self._policy(batch, self._online_actor)
        action = self._action(batch, policy)
        count = weight.numel() if mask is None else mask.sum()
        improved = TensorDict({"action": action, "weight": weight * count}, weight.shape)
        return self._m_step(improved, policy, reference)


def _continuous_space(
    actor_network: nn.Module, action_key: NestedKey, action_spec: TensorSpec | None
) -> ActionSpace | None:
    """What is known of an action space of real numbers; ``None`` if it is a discrete one."""
    spec = known_spec(actor_network, action_spec)
    if isinstance(spec, Composite):
        spec = spec.get(action_key, None)
    kind = sampling_module(actor_network).distribution_class
    is_discrete = isinstance(kind, type) and issubclass(kind, (d.Categorical, d.OneHotCategorical))
    if is_discrete or (spec is not None and spec.domain == "discrete"):
        return None
    return ActionSpace(actor_network, action_key, action_spec)
