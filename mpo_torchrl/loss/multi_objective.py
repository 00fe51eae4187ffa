"""MPO for several objectives: the bounds are the preference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tensordict import NestedKey
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModule
from torch import Tensor, nn

from mpo_torchrl.critic import MultiObjectiveCritic
from mpo_torchrl.critic.scalar import LossFunction
from mpo_torchrl.dual import ObjectiveTemperatures
from mpo_torchrl.dual.multiplier import Parametrization
from mpo_torchrl.e_step import MultiObjectiveEStep
from mpo_torchrl.loss import checks
from mpo_torchrl.loss.heads import find_action_space
from mpo_torchrl.loss.mpo import MPOLoss
from mpo_torchrl.loss.networks import sampling_module
from mpo_torchrl.loss.parts import make_penalty


class MultiObjectiveMPOLoss(MPOLoss):
    r"""TorchRL implementation of multi-objective MPO (MO-MPO).

    Presented in "A Distributional View on Multi-Objective Policy Optimization"
    https://arxiv.org/abs/2005.07513. Each of ``K`` rewards has values and a temperature of its
    own; the weights of the E-step are added up, and one policy is fitted to them.

    .. math::
        w_n = \textstyle\sum_k \mathrm{softmax}_N\big(Q_k(s, a_n) / \eta_k\big), \qquad
        \ell_\eta = \tfrac1K \textstyle\sum_k \big[\eta_k \epsilon_k
        + \eta_k \log \tfrac1N \sum_n e^{Q_{k,n} / \eta_k}\big]

    The critic's loss and the M-step are those of :class:`~mpo_torchrl.MPOLoss`. How much an
    objective counts is set by its bound, in nats, and not by the unit of its reward, once its
    temperature has followed its values; begin with rewards of similar size.

    Args:
        actor_network (ProbabilisticTensorDictSequential): stochastic actor.
        qvalue_network (TensorDictModule, list of TensorDictModule or MultiObjectiveCritic): the
            critic, with an output for each objective, ``"state_action_value"`` ``[*B, K]``.
        epsilon (mapping): the bound of each objective by its name, in the order of the rewards
            ``[*B, K]``, nats.

    Keyword Args:
        init_temperature (float): the temperatures at the start, unit of return.
        num_action_samples (int): actions drawn per state in the E-step, ``N``.
        epsilon_penalty (float, optional): bound on the KL spent on staying in the action space,
            nats; ``None`` for no penalty.
        init_penalty_temperature (float): the penalty's temperature at the start, unit of action.
        parametrization (str): how multipliers stay positive, ``"softplus"`` or ``"exp"``.
        loss_function (str): of the critic, ``"l2"``, ``"l1"`` or ``"smooth_l1"``.
        **kwargs: the other arguments of :class:`~mpo_torchrl.MPOLoss`.

    Raises:
        TypeError: if the actor is deterministic or a network is no TensorDict module.
        ValueError: if an argument is out of its range, or the critic has another number of
            objectives than there are bounds.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl.data import Bounded
        >>> from mpo_torchrl import MultiObjectiveMPOLoss
        >>> from mpo_torchrl.modules import make_actor, make_critics
        >>> spec = Bounded(-2.0, 2.0, shape=(1,))
        >>> loss = MultiObjectiveMPOLoss(
        ...     make_actor(3, spec),
        ...     make_critics(3, spec, num_outputs=2),
        ...     epsilon={"speed": 0.1, "energy": 0.01},
        ... )
        >>> batch = TensorDict(observation=torch.randn(5, 3), action=torch.rand(5, 1), batch_size=5)
        >>> batch["next"] = TensorDict(
        ...     observation=torch.randn(5, 3),
        ...     reward=torch.randn(5, 2),
        ...     done=torch.zeros(5, 1, dtype=torch.bool),
        ...     terminated=torch.zeros(5, 1, dtype=torch.bool),
        ...     batch_size=5,
        ... )
        >>> losses = loss(batch)
        >>> sorted(key for key in losses.keys() if key.startswith("temperature"))
        ['temperature_energy', 'temperature_speed']
    """

    _e_step: MultiObjectiveEStep

    def __init__(
        self,
        actor_network: ProbabilisticTensorDictSequential,
        qvalue_network: TensorDictModule | Sequence[TensorDictModule] | MultiObjectiveCritic,
        epsilon: Mapping[str, float],
        *,
        init_temperature: float = 1.0,
        num_action_samples: int = 20,
        epsilon_penalty: float | None = 0.001,
        init_penalty_temperature: float = 1.0,
        parametrization: Parametrization = "softplus",
        loss_function: LossFunction = "l2",
        **kwargs: Any,
    ) -> None:
        _require_mapping(epsilon)
        if kwargs.get("temperature") is not None:
            raise ValueError(
                "several objectives have a temperature each, learned from init_temperature; "
                "leave temperature out."
            )
        if kwargs.pop("e_step", None) is not None:
            raise ValueError(
                "several objectives have an E-step of their own, MultiObjectiveEStep with the "
                "bounds of epsilon; leave e_step out."
            )
        temperatures = ObjectiveTemperatures(
            epsilon, init_temperature, parametrization=parametrization
        )
        critic = qvalue_network
        if isinstance(critic, MultiObjectiveCritic):
            own = MultiObjectiveMPOLoss
            checks.require_default(own, "critic", "loss_function", loss_function)
        else:
            critic = MultiObjectiveCritic(critic, len(epsilon), loss_function=loss_function)
        if critic.num_objectives != len(epsilon):
            raise ValueError(
                f"epsilon must have a bound for each of the critic's {critic.num_objectives} "
                f"objectives, got {len(epsilon)}: {list(epsilon)}."
            )
        sampling_module(actor_network)  # raises if the actor is deterministic
        space = find_action_space(actor_network, kwargs.get("action_spec"))
        penalty = make_penalty(space, epsilon_penalty, init_penalty_temperature, parametrization)
        super().__init__(
            actor_network,
            critic,
            e_step=MultiObjectiveEStep(
                temperatures, num_action_samples=num_action_samples, penalty=penalty
            ),
            parametrization=parametrization,
            **kwargs,
        )

    @property
    def epsilon(self) -> dict[str, Tensor]:
        """The bound of each objective, nats; assign a mapping to change some of them."""
        return {name: dual.epsilon for name, dual in self._duals()}

    @epsilon.setter
    def epsilon(self, epsilon: Mapping[str, float]) -> None:
        _require_mapping(epsilon)
        duals = dict(self._duals())
        for name, bound in epsilon.items():
            if name not in duals:
                raise ValueError(f"{name!r} is no objective, they are {list(duals)}.")
            duals[name].set_epsilon(bound)

    def _duals(self) -> list[tuple[str, Any]]:
        return list(self._e_step.temperature.items())

    def _temperatures(self) -> dict[str, nn.Module]:
        return {f"temperature_{name}": dual for name, dual in self._duals()}

    def _make_out_keys(self) -> list[NestedKey]:
        names = [name for name, _ in self._duals()]
        keys: list[NestedKey] = []
        for key in super()._make_out_keys():
            if key == "kl_e_step":
                keys += [f"kl_e_step_{name}" for name in names]
            elif key != "temperature":
                keys.append(key)
        return keys


def _require_mapping(epsilon: object) -> None:
    if not isinstance(epsilon, Mapping):
        raise TypeError(
            "epsilon must be a mapping of each objective's name to its bound, such as "
            f"{{'speed': 0.1, 'energy': 0.01}}, got {epsilon!r}."
        )
