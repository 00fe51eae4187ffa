"""MPO for continuous actions: the four parts wired together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModule
from torch import Tensor, nn
from torch import distributions as d
from torchrl.data import TensorSpec

from mpo_torchrl.critic import Critic, ScalarCritic
from mpo_torchrl.critic.retrace import RETRACE
from mpo_torchrl.critic.scalar import LossFunction
from mpo_torchrl.distributions import GaussianBase
from mpo_torchrl.dual import ExactTemperature, FixedTemperature, Temperature
from mpo_torchrl.dual.multiplier import Parametrization
from mpo_torchrl.e_step import BehaviourEStep, MultiObjectiveEStep, SampledEStep
from mpo_torchrl.e_step.sampled import draw_actions
from mpo_torchrl.errors import require_count
from mpo_torchrl.loss import checks
from mpo_torchrl.loss.action_space import ActionSpace
from mpo_torchrl.loss.heads import Heads, find_action_space
from mpo_torchrl.loss.improvement import ImprovementLoss
from mpo_torchrl.loss.memories import Memories
from mpo_torchrl.loss.networks import sampling_module
from mpo_torchrl.loss.parts import make_e_step, make_m_step
from mpo_torchrl.loss.policy import Policy
from mpo_torchrl.loss.schedule import bound
from mpo_torchrl.m_step import CompositeMStep, DistributionMStep, Fit, GaussianMStep
from mpo_torchrl.precision import fast_scoring_dtype


class MPOLoss(ImprovementLoss):
    r"""TorchRL implementation of the MPO loss for continuous actions.

    Presented in "Maximum a Posteriori Policy Optimisation"
    https://arxiv.org/abs/1806.06920 and "Relative Entropy Regularized Policy Iteration"
    https://arxiv.org/abs/1812.02256. Takes the very modules that
    :class:`~torchrl.objectives.SACLoss` takes and goes where it goes.

    .. math::
        \ell_Q &= \textstyle\sum_c d\big(Q_c(s, a),\, r + \gamma V(s')\big), \quad
        V(s') = \tfrac1M \sum_m \min_c \bar Q_c(s', a'_m) \\
        w_n &= \mathrm{softmax}_N\big(\min_c Q_c(s, a_n) / \eta\big), \quad
        a_n \sim \bar\pi(\cdot \mid s) \\
        \ell_\eta &= \eta \epsilon + \eta \log \tfrac1N \textstyle\sum_n e^{Q_n / \eta} \\
        \ell_\pi &= -\textstyle\sum_n w_n \big[\log \mathcal N(a_n; \mu, \bar\sigma)
        + \log \mathcal N(a_n; \bar\mu, \sigma)\big]
        + \textstyle\sum_d \alpha_d \mathrm{KL}_d, \quad
        \ell_\alpha = \textstyle\sum_d \alpha_d (\epsilon_d - \mathrm{KL}_d)

    The networks and the dual variables want different learning rates: give
    :meth:`network_parameters` and :meth:`dual_parameters` to two parameter groups.

    A Gaussian policy, squashed or not, is fitted with separate bounds on mean and stddev; any
    other distribution with one bound ``epsilon_policy``. An unsquashed policy pays for leaving
    the action space if ``epsilon_penalty`` is set.

    Networks may be recurrent: TorchRL's :class:`~torchrl.modules.GRUModule` or
    :class:`~torchrl.modules.LSTMModule` and what follows them, from
    :func:`~mpo_torchrl.modules.make_recurrent_actor`, for example. A batch is then ``[*B, T]``,
    consecutive steps, with ``"is_init"`` where episodes begin and the actor's state as it was
    collected; of a state only the first of a sequence is read. Critics start from zero, or with
    ``burn_in`` like the actor from what a few steps before taught them. Each runs once over a
    sequence and what follows its recurrent part reads the ``N`` actions; no history is copied.

    **Several agents** are a group under a nested key, such as ``("agents", "action")``
    ``[*B, n, A]`` in a TensorDict ``[*B]``, as in TorchRL's multi-agent environments. Every agent
    is a state of its own: losses are ``[*B, n]`` before they are reduced, multipliers are shared.
    Rewards and flags are ``[*B, n, 1]``, or ``[*B, 1]`` for the whole team; name them, and where
    the critics write, with ``set_keys``. The critics see ``N`` actions of the team at once,
    ``[*B, N, n, A]``, so that they may read those of the other agents too.

    **Several heads**, continuous or discrete, are a
    :class:`~tensordict.nn.CompositeDistribution`: actions are drawn and weighed as a whole, and
    each head is fitted within bounds of its own (:class:`~mpo_torchrl.m_step.CompositeMStep`),
    multipliers ``alpha_<head>_mean``, ``alpha_<head>_stddev`` or ``alpha_<head>_policy``. The
    spec must have an entry for each. Agents with several heads, and Retrace with several heads,
    are not supported.

    Beside a part of one's own the arguments that it brings itself are refused: ``epsilon`` and
    ``init_temperature`` beside ``temperature``, these and those of samples and penalty beside
    ``e_step``, the other bounds and ``init_alpha_*`` beside ``m_step``, ``loss_function`` beside a
    ``Critic``.

    Args:
        actor_network (ProbabilisticTensorDictSequential): stochastic actor.
        qvalue_network (TensorDictModule, list of TensorDictModule or Critic): the critic,
            which reads the observation and the action and writes ``"state_action_value"``:
            plain modules for a :class:`~mpo_torchrl.critic.ScalarCritic`, or a part such as
            ``CategoricalCritic(networks, support)``. A single module is expanded
            ``num_qvalue_nets`` times and *drawn anew* uniformly between its smallest and
            largest weight, as in every TorchRL loss; a list keeps each module's own
            initialisation, and so does a single module with ``num_qvalue_nets=1``.

    Keyword Args:
        num_qvalue_nets (int, optional): number of critics; 2 by default, the length of a list.
        num_action_samples (int): actions drawn per state in the E-step, ``N``.
        num_bootstrap_samples (int): actions drawn per next state for its value, ``M``.
        e_step_critic (str): critics that score the E-step, ``"online"`` or ``"target"``. With
            ``"next"`` the policy is improved at the *next* state, on the very actions and
            target values that the bootstrap averages: one pass of the critics less, and ``M``
            is ``N``, as in Acme's TensorFlow agent.
        epsilon (float): bound on the KL of the E-step, nats.
        epsilon_mean (float): bound on the KL of the means (each dimension's), nats.
        epsilon_stddev (float): bound on the KL of the stddevs (each dimension's), nats.
        epsilon_penalty (float, optional): bound on the KL spent on staying in the action space,
            nats; ``None`` for no penalty. Not used by squashed policies.
        epsilon_policy (float): bound on the KL of policies that are not Gaussian, nats.
        per_dim_constraining (bool): bound each action dimension, or their sum.
        init_temperature (float): the temperature at the start, unit of return.
        init_penalty_temperature (float): that of the penalty, unit of action.
        init_alpha_mean (float): the multiplier of ``epsilon_mean`` at the start.
        init_alpha_stddev (float): the multiplier of ``epsilon_stddev`` at the start.
        init_alpha_policy (float): the multiplier of ``epsilon_policy`` at the start.
        parametrization (str): how multipliers stay positive, ``"softplus"`` or ``"exp"``.
        delay_actor (bool): draw from a target policy that an updater moves; else from the
            detached current policy.
        delay_qvalue (bool): bootstrap from target critics; else from the current ones.
        loss_function (str): of the critic, ``"l2"``, ``"l1"`` or ``"smooth_l1"``.
        reduction (str): ``"mean"``, ``"sum"`` or ``"none"``. The losses of the dual variables
            are sums over states too: with ``"none"`` each state's share, ``[*B]``.
        action_spec (TensorSpec, optional): the action's spec, if the actor does not know it.
        separate_losses (bool): keep the critic's loss from training what it shares with the
            actor.
        deactivate_vmap (bool): loop over the critics on every device; on a CPU they always are.
        scoring_dtype (torch.dtype or str): precision of the critics' hidden layers when they
            score the E-step; never of their last layer, their targets or their loss. ``"auto"``
            follows :func:`~mpo_torchrl.precision.fast_scoring_dtype`.
        use_prioritized_weights (str or bool): weigh the critic's loss by the
            ``priority_weight`` of the batch, if it has one (``"auto"``).
        scalar_output_mode (str, optional): with ``reduction="none"`` the diagnostics are left
            out (``"exclude"``) or stored as non-tensor data (``"non_tensor"``).
        burn_in (int): with recurrent networks, steps at the start of each sequence that only
            bring them into their state; without gradient, and no loss is computed there. Their
            priority is that of the most urgent step after them.
        temperature (Temperature, ExactTemperature or FixedTemperature, optional): an own dual of
            the E-step, with its bound; learned from ``init_temperature`` by default.
        e_step (SampledEStep, optional): an own part 2 with its temperature, such as
            :class:`~mpo_torchrl.e_step.BehaviourEStep` to learn from a data set.
        m_step (GaussianMStep, DistributionMStep or CompositeMStep, optional): an own part 4 with
            its multipliers.

    Raises:
        TypeError: if the actor is deterministic, a network is no TensorDict module, or an argument
            is of the wrong kind.
        ValueError: if an argument is out of its range, or set although a part brings its own, the
            action space is discrete, a penalty is asked for in an unbounded one, or the spec of a
            head is not known.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl.data import Bounded
        >>> from mpo_torchrl import MPOLoss
        >>> from mpo_torchrl.modules import make_actor, make_critics
        >>> spec = Bounded(-2.0, 2.0, shape=(1,))
        >>> loss = MPOLoss(make_actor(3, spec), make_critics(3, spec))
        >>> _ = loss.make_value_estimator(gamma=0.99)
        >>> batch = TensorDict(observation=torch.randn(5, 3), action=torch.rand(5, 1), batch_size=5)
        >>> batch["next"] = TensorDict(
        ...     observation=torch.randn(5, 3),
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

    _policy: Policy
    _e_step: SampledEStep
    _m_step: GaussianMStep | DistributionMStep | CompositeMStep

    SUPPORTED_VALUE_ESTIMATORS = (*ImprovementLoss.SUPPORTED_VALUE_ESTIMATORS, RETRACE)

    epsilon = bound("temperature")
    epsilon_penalty = bound("penalty_temperature")
    epsilon_mean = bound("alpha_mean")
    epsilon_stddev = bound("alpha_stddev")
    epsilon_policy = bound("alpha_policy")

    def __init__(
        self,
        actor_network: ProbabilisticTensorDictSequential,
        qvalue_network: TensorDictModule | Sequence[TensorDictModule] | Critic,
        *,
        num_qvalue_nets: int | None = None,
        num_action_samples: int = 20,
        num_bootstrap_samples: int = 1,
        e_step_critic: Literal["online", "target", "next"] = "online",
        epsilon: float = 0.1,
        epsilon_mean: float = 0.1,
        epsilon_stddev: float = 5e-3,
        epsilon_penalty: float | None = 0.001,
        epsilon_policy: float = 0.1,
        per_dim_constraining: bool = True,
        init_temperature: float = 1.0,
        init_penalty_temperature: float = 1.0,
        init_alpha_mean: float = 1.0,
        init_alpha_stddev: float = 1.0,
        init_alpha_policy: float = 1.0,
        parametrization: Parametrization = "softplus",
        delay_actor: bool = True,
        delay_qvalue: bool = True,
        loss_function: LossFunction = "l2",
        reduction: Literal["none", "mean", "sum"] = "mean",
        action_spec: TensorSpec | None = None,
        separate_losses: bool = False,
        deactivate_vmap: bool = False,
        scoring_dtype: torch.dtype | Literal["auto"] = "auto",
        use_prioritized_weights: str | bool = "auto",
        scalar_output_mode: Literal["exclude", "non_tensor"] | None = None,
        burn_in: int = 0,
        temperature: Temperature | ExactTemperature | FixedTemperature | None = None,
        e_step: SampledEStep | None = None,
        m_step: GaussianMStep | DistributionMStep | CompositeMStep | None = None,
    ) -> None:
        arguments = dict(locals())
        super().__init__()
        self._set_output(reduction, scalar_output_mode, use_prioritized_weights)
        checks.require_choice("e_step_critic", e_step_critic, ("online", "target", "next"))
        checks.require_scoring_dtype(scoring_dtype)
        require_count("num_bootstrap_samples", num_bootstrap_samples)
        checks.require_temperature(temperature)
        checks.require_e_step(
            e_step, (SampledEStep, BehaviourEStep), ("dual_terms", "weighs_taken")
        )
        checks.require_m_step(m_step, (GaussianMStep, DistributionMStep, CompositeMStep))
        if e_step is not None and temperature is not None:
            raise ValueError(
                f"{type(e_step).__name__} has a temperature of its own; give it this one, "
                f"e_step={type(e_step).__name__}({type(temperature).__name__}(...), ...), or pass "
                "no e_step."
            )
        checks.require_left_out(MPOLoss, arguments)
        critic = qvalue_network
        if isinstance(critic, Critic):
            checks.require_default(MPOLoss, "Critic", "loss_function", loss_function)
        else:
            critic = ScalarCritic(qvalue_network, loss_function=loss_function)
        _require_one_value(critic, e_step)

        sampling_module(actor_network)  # raises if the actor is deterministic
        self._wire_networks(
            critic,
            actor_network,
            num_qvalue_nets,
            delay_actor,
            delay_qvalue,
            separate_losses,
            deactivate_vmap,
        )
        self._action_spec = action_spec
        space = find_action_space(actor_network, action_spec)
        if isinstance(space, Heads):
            self.set_keys(action=space.keys)
        e_step = e_step or make_e_step(
            space,
            num_action_samples,
            temperature or Temperature(epsilon, init_temperature, parametrization=parametrization),
            epsilon_penalty,
            init_penalty_temperature,
            parametrization,
        )
        m_step = m_step or make_m_step(
            space,
            {"mean": epsilon_mean, "stddev": epsilon_stddev, "policy": epsilon_policy},
            {"mean": init_alpha_mean, "stddev": init_alpha_stddev, "policy": init_alpha_policy},
            per_dim_constraining,
            parametrization,
        )
        if e_step.weighs_taken and e_step_critic == "next":
            raise ValueError(
                f"e_step_critic must be 'online' or 'target' with {type(e_step).__name__}, got "
                "'next': the batch holds no action of the next state to weigh."
            )
        if e_step.weighs_taken and isinstance(space, Heads):
            raise ValueError(
                f"{type(e_step).__name__} weighs one action taken, the policy has the heads "
                f"{list(space.spaces)}."
            )
        self._wire_parts(e_step, m_step)

        self.num_bootstrap_samples = num_bootstrap_samples
        self.e_step_critic = e_step_critic
        self.scoring_dtype = scoring_dtype
        self._adapt()
        memories = Memories(self._policy, critic.ensemble, self.tensor_keys.action, burn_in)
        if memories and self._heads is not None:
            raise ValueError("a policy of several heads cannot have recurrent networks.")
        self.__dict__["_memories"] = memories if memories else None
        self._default_value_estimator()  # at once, so that every state_dict has its discount

    # -- wiring ---------------------------------------------------------------------------

    def _wire_parts(
        self, e_step: SampledEStep, m_step: GaussianMStep | DistributionMStep | CompositeMStep
    ) -> None:
        self.__dict__["_e_step"] = e_step
        temperatures = self._temperatures()
        if (penalty := getattr(e_step, "penalty", None)) is not None:
            temperatures["penalty_temperature"] = penalty
        self._wire_multipliers(temperatures, m_step)

    def _temperatures(self) -> dict[str, nn.Module]:
        """The duals of the values in the E-step, by the names of their diagnostics."""
        return {"temperature": self._e_step.temperature}

    def _adapt(self) -> None:
        """Settles what follows from the device and the precision of the networks."""
        space = find_action_space(self.actor_network, self._action_spec)
        self._heads = space if isinstance(space, Heads) else None
        transforms = None
        if isinstance(space, ActionSpace) and type(self._m_step) is GaussianMStep:
            transforms = space.fixed_transforms()
        self.__dict__["_policy"] = Policy(self.actor_network, transforms)
        parameter = next(self.qvalue_network_params.parameters())
        self._fast_dtype = fast_scoring_dtype(parameter.device, parameter.dtype)

    def _apply(self, fn: Any) -> MPOLoss:
        super()._apply(fn)
        self._adapt()
        return self

    # -- the steps ------------------------------------------------------------------------

    @property
    def _improves_next(self) -> bool:
        return self.e_step_critic == "next"

    @torch.no_grad()
    def _value_target(self, tensordict: TensorDictBase, improved: TensorDictBase | None) -> Tensor:
        """The critic's target ``[*B, ...]``: rewards, and what it says of the next state."""
        keys = self.tensor_keys
        if improved is not None and self._improves_next:
            action = improved.get("action")
            prediction = improved.get("prediction").movedim(action.ndim - 2, 0)
        else:
            policy, states = self._policy(tensordict.get("next"), self._reference_actor)
            action = draw_actions(policy, self.num_bootstrap_samples)["action"]
            prediction = self._predict(states, action, self._target_critics)
        batch = action.shape[:-2]
        taken = self._taken(tensordict)
        checks.require_action_shape(keys.action, taken.shape, (*batch, action.shape[-1]))
        self._require_outcome(tensordict, batch)
        if self._needs_traces:
            tensordict = self._with_traces(tensordict)
        return self.critic.target(tensordict, prediction, self.value_estimator)

    def _with_traces(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The batch with what the reference policy and its critics say of the actions taken."""
        keys = self.tensor_keys
        action = tensordict.get(keys.action)
        prediction = self._predict(tensordict, action.unsqueeze(-2), self._target_critics)
        log_prob = self._policy.log_prob(tensordict, action, self._reference_actor)
        return tensordict.copy().update(
            {
                keys.state_action_value: self.critic.value(prediction),
                "policy_log_prob": log_prob,
            }
        )

    @torch.no_grad()
    def _improve(
        self, tensordict: TensorDictBase
    ) -> tuple[TensorDictBase, d.Distribution | GaussianBase]:
        """The E-step and the reference policy it drew from."""
        improved_states = tensordict.get("next") if self._improves_next else tensordict
        reference, states = self._policy(improved_states, self._reference_actor)
        online = self.e_step_critic == "online"
        params = self._trained_critics if online else self._target_critics
        # A critic's target is never computed in reduced precision.
        scoring = self._fast_dtype if self.scoring_dtype == "auto" else self.scoring_dtype
        dtype = None if self._improves_next else scoring
        beside: dict[str, Tensor] = {}
        if (mask := self._mask(tensordict)) is not None:
            beside["mask"] = mask
        if self._e_step.weighs_taken:
            beside["taken"] = tensordict.get(self.tensor_keys.action)
        predictions: list[Tensor] = []

        def score(action: Tensor) -> Tensor:
            predictions.append(self._predict(states, action, params, dtype))
            return self.critic.value(predictions[-1])

        improved = self._e_step(
            reference,
            score,
            self._given(tensordict),
            **beside,
        )
        if self._improves_next and improved.get("prediction", None) is None:
            action = improved.get("action")
            if not predictions:  # the values were given
                score(action)
            # Of every critic, since the bootstrap may need more than values: [*B, C, N, ...].
            improved.set("prediction", predictions[-1].movedim(0, action.ndim - 2))
        return improved, reference

    def _temperature_terms(self, improved: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        return self._e_step.dual_terms(improved)

    def _fit(
        self,
        tensordict: TensorDictBase,
        improved: TensorDictBase,
        reference: d.Distribution | GaussianBase,
    ) -> Fit:
        states = tensordict.get("next") if self._improves_next else tensordict
        policy, _ = self._policy(states, self._online_actor)
        return self._m_step(improved, policy, reference)


def _require_one_value(critic: Critic, e_step: nn.Module | None) -> None:
    """Raises ``ValueError`` if the critic's values are not one for each sampled action."""
    if not critic.reads_action:
        raise ValueError(
            f"MPOLoss asks for the value of sampled actions, {type(critic).__name__} values all at "
            "once; take DiscreteMPOLoss, or a critic that reads the action."
        )
    if critic.num_objectives > 1 and not isinstance(e_step, MultiObjectiveEStep):
        raise ValueError(
            f"MPOLoss has one objective, {type(critic).__name__} has {critic.num_objectives}; take "
            "MultiObjectiveMPOLoss."
        )
