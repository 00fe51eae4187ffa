"""Bad networks and arguments end in one sentence that names them."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from tensordict.nn import (
    CompositeDistribution,
    NormalParamExtractor,
    ProbabilisticTensorDictModule,
    ProbabilisticTensorDictSequential,
    TensorDictModule,
)
from torch import distributions as d
from torch import nn
from torchrl.data import Bounded, Categorical, Composite, MultiCategorical, OneHot, Unbounded
from torchrl.modules import (
    MLP,
    Actor,
    Delta,
    OneHotCategorical,
    ProbabilisticActor,
    TanhDelta,
    ValueOperator,
)

from mpo_torchrl import DiscreteMPOLoss, MPOLoss, VMPOLoss
from mpo_torchrl.critic import EnumeratedCritic, MultiObjectiveCritic, ScalarCritic
from mpo_torchrl.dual import CategoricalTemperature, ExactTemperature, KLMultiplier, Temperature
from mpo_torchrl.e_step import AdvantageEStep, EnumeratedEStep, SampledEStep
from mpo_torchrl.m_step import CategoricalMStep, DistributionMStep
from mpo_torchrl.modules import make_value_network
from tests.loss.builders import (
    SPEC,
    A,
    O,
    make_actor,
    make_batch,
    make_critic,
    make_loss,
    shared_encoder_loss,
    without_spec,
)

# -- the critic ---------------------------------------------------------------------------


def loss_with(critic: Any, **kwargs: Any) -> MPOLoss:
    return MPOLoss(make_actor(), critic, **kwargs)


@pytest.mark.parametrize("outputs", [2, 5])
def test_a_critic_of_several_values_is_refused(outputs: int) -> None:
    network = MLP(in_features=O + A, out_features=outputs, num_cells=[8])
    critic = ValueOperator(network, in_keys=["observation", "action"])
    with pytest.raises(
        ValueError, match=r"must write 'state_action_value' as \[\*B, 1\].*one output"
    ):
        loss_with(critic)(make_batch(4))


def test_a_critic_without_its_last_dimension_is_refused() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(O + A, 1)

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            return self.body(torch.cat(inputs, -1)).squeeze(-1)

    critic = TensorDictModule(Flat(), ["observation", "action"], ["state_action_value"])
    with pytest.raises(ValueError, match=r"must write 'state_action_value' as \[\*B, 1\]"):
        loss_with(critic)(make_batch(4))


@pytest.mark.parametrize("hooked", [False, True])
def test_a_critic_that_writes_elsewhere_is_refused(hooked: bool) -> None:
    critic = make_critic(out_key="q")
    if hooked:
        critic.register_forward_hook(lambda module, args, output: None)
    with pytest.raises(KeyError, match="must write the key 'state_action_value', it wrote .*'q'"):
        loss_with(critic)(make_batch(4))


def test_a_critic_that_is_no_tensordict_module_is_refused() -> None:
    with pytest.raises(TypeError, match="must be a TensorDict module .* got Linear"):
        loss_with(nn.Linear(O + A, 1))


def test_a_critic_of_another_loss_is_refused() -> None:
    network = TensorDictModule(nn.Linear(O, A), ["observation"], ["action_value"])
    with pytest.raises(ValueError, match="EnumeratedCritic values all at once; take DiscreteMPO"):
        loss_with(EnumeratedCritic(network))
    with pytest.raises(ValueError, match="MultiObjectiveCritic has 2; take MultiObjectiveMPOLoss"):
        loss_with(MultiObjectiveCritic(make_critic(), 2))


def test_no_critic_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one network, got an empty list"):
        loss_with([])


@pytest.mark.parametrize(("given", "asked"), [(1, 0), (1, -1), (2, 3), (3, 2), (2, 1)])
def test_a_number_of_critics_that_does_not_fit_is_refused(given: int, asked: int) -> None:
    critics = [make_critic() for _ in range(given)]
    with pytest.raises(
        ValueError, match=f"num_qvalue_nets={asked} does not fit the {given} critic"
    ):
        loss_with(critics, num_qvalue_nets=asked)


def test_a_number_of_critics_is_whole() -> None:
    with pytest.raises(ValueError, match="num_qvalue_nets=2.5 does not fit the 1 critic"):
        loss_with(make_critic(), num_qvalue_nets=2.5)


def test_the_same_critic_twice_is_refused() -> None:
    critic = make_critic()
    with pytest.raises(ValueError, match="the same network more than once"):
        loss_with([critic, critic])


def critic_of(
    activation: type, keys: tuple[str, str] = ("observation", "action"), cells: int = 8
) -> ValueOperator:
    network = MLP(in_features=O + A, out_features=1, num_cells=[cells], activation_class=activation)
    return ValueOperator(network, in_keys=list(keys))


@pytest.mark.parametrize(
    "other",
    [
        critic_of(nn.ReLU),
        critic_of(nn.Tanh, ("action", "observation")),
        critic_of(nn.Tanh, cells=9),
        make_critic(),
    ],
    ids=["another layer", "another order", "another size", "another network"],
)
def test_critics_that_are_not_built_alike_are_refused(other: ValueOperator) -> None:
    with pytest.raises(ValueError, match="critics of a list must be built alike"):
        loss_with([critic_of(nn.Tanh), other])


# -- the actor and its actions ------------------------------------------------------------


def test_a_deterministic_actor_is_refused() -> None:
    actor = Actor(MLP(in_features=O, out_features=A, num_cells=[8]), spec=SPEC)
    with pytest.raises(TypeError, match="must be a stochastic policy with get_dist.*got Actor"):
        MPOLoss(actor, make_critic())


@pytest.mark.parametrize("distribution", [Delta, TanhDelta])
def test_a_policy_of_one_action_is_refused(distribution: type) -> None:
    network = TensorDictModule(nn.Linear(O, A), ["observation"], ["param"])
    actor = ProbabilisticActor(
        network, in_keys=["param"], spec=SPEC, distribution_class=distribution
    )
    with pytest.raises(TypeError, match=f"stochastic policy.*{distribution.__name__} has one"):
        MPOLoss(actor, make_critic())


@pytest.mark.parametrize(
    "given", [None, (make_critic(),), make_actor], ids=["none", "tuple", "function"]
)
def test_what_is_no_module_is_refused_as_an_actor(given: Any) -> None:
    kind = type(given).__name__
    with pytest.raises(TypeError, match=f"actor_network must be a stochastic policy.*got {kind}"):
        MPOLoss(given, make_critic())


def test_a_module_that_is_no_actor_is_refused() -> None:
    with pytest.raises(TypeError, match="must be a stochastic policy with get_dist.*got Linear"):
        MPOLoss(nn.Linear(O, A), make_critic())


def discrete_actor(spec: Any) -> ProbabilisticActor:
    network = TensorDictModule(nn.Linear(O, 4), ["observation"], ["logits"])
    return ProbabilisticActor(
        network, in_keys=["logits"], spec=spec, distribution_class=OneHotCategorical
    )


@pytest.mark.parametrize(
    "spec",
    [OneHot(4), Categorical(4), MultiCategorical([2, 2]), Bounded(0, 3, (1,), dtype=torch.int64)],
    ids=lambda s: type(s).__name__,
)
def test_a_discrete_action_space_is_refused(spec: Any) -> None:
    with pytest.raises(ValueError, match="needs a continuous action space.* got the discrete"):
        MPOLoss(discrete_actor(None), make_critic(), action_spec=spec)


def test_a_discrete_policy_is_refused_although_its_spec_is_continuous() -> None:
    with pytest.raises(ValueError, match="policy of the discrete distribution OneHotCategorical"):
        MPOLoss(discrete_actor(Unbounded(4)), make_critic())


def test_a_discrete_actor_is_refused_by_its_own_spec() -> None:
    with pytest.raises(ValueError, match="needs a continuous action space.* discrete OneHot"):
        MPOLoss(discrete_actor(OneHot(4)), make_critic())


def composite_actor() -> ProbabilisticTensorDictSequential:
    network = nn.Sequential(nn.Linear(O, 2 * A), NormalParamExtractor())
    keys = [("params", "arm", "loc"), ("params", "arm", "scale")]
    return ProbabilisticTensorDictSequential(
        TensorDictModule(network, ["observation"], keys),
        ProbabilisticTensorDictModule(
            in_keys=["params"],
            distribution_class=CompositeDistribution,
            distribution_kwargs={
                "distribution_map": {"arm": d.Normal},
                "name_map": {"arm": ("action", "arm")},
            },
        ),
    )


def test_an_action_of_several_parts_is_refused() -> None:
    spec = Composite(action=Composite(arm=SPEC, leg=SPEC))
    with pytest.raises(
        ValueError, match=r"one action of real numbers.*composed of \['arm', 'leg'\]"
    ):
        MPOLoss(without_spec(make_actor()), make_critic(), action_spec=spec)


def test_a_policy_of_several_distributions_needs_the_spec_of_each() -> None:
    with pytest.raises(ValueError, match=r"spec of the head \('action', 'arm'\) is not known"):
        MPOLoss(composite_actor(), make_critic(), action_spec=SPEC)


def test_an_unknown_action_size_is_asked_for() -> None:
    with pytest.raises(
        ValueError, match="size of an action is not known.*action_spec=env.action_spec"
    ):
        MPOLoss(without_spec(make_actor()), make_critic())


def test_an_action_without_a_last_dimension_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs a last dimension .* spec of shape \[\]"):
        MPOLoss(without_spec(make_actor()), make_critic(), action_spec=Bounded(-1.0, 1.0, ()))


def test_a_spec_of_another_size_than_the_policy_is_refused() -> None:
    loss = MPOLoss(
        without_spec(make_actor()), make_critic(), action_spec=Unbounded(3), epsilon_penalty=None
    )
    with pytest.raises(ValueError, match="has 3 multipliers and the policy 2 action dimensions"):
        loss(make_batch(4))
    loss = MPOLoss(without_spec(make_actor()), make_critic(), action_spec=Bounded(-1.0, 1.0, 3))
    with pytest.raises(ValueError, match="bounds of 3 action dimensions and the policy 2; pass"):
        loss(make_batch(4))


def test_an_action_spec_that_is_no_spec_is_refused() -> None:
    for make in (
        make_loss,
        lambda **kwargs: VMPOLoss(make_actor(), make_value_network(O), **kwargs),
    ):
        with pytest.raises(
            TypeError, match="action_spec must be a spec of torchrl.data.*got tuple"
        ):
            make(action_spec=(A,))


@pytest.mark.parametrize(
    "spec",
    [Unbounded(A), Bounded(torch.tensor([-1.0, -torch.inf]), torch.ones(A))],
    ids=["unbounded", "half"],
)
def test_a_penalty_in_an_unbounded_action_space_is_refused(spec: Any) -> None:
    with pytest.raises(ValueError, match="needs a bounded action space.*epsilon_penalty=None"):
        MPOLoss(without_spec(make_actor()), make_critic(), action_spec=spec)


# -- the arguments ------------------------------------------------------------------------

BOUNDS = ["epsilon", "epsilon_mean", "epsilon_stddev", "epsilon_penalty", "epsilon_policy"]


@pytest.mark.parametrize("value", [0.0, -0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("bound", BOUNDS)
def test_a_bound_that_is_not_positive_is_refused(bound: str, value: float) -> None:
    policy = "beta" if bound == "epsilon_policy" else "gaussian"
    with pytest.raises(
        ValueError, match=f"^{bound} is a bound on a KL .* positive and finite, got"
    ):
        make_loss(policy, **{bound: value})


INITS = {
    "temperature": "epsilon",
    "penalty_temperature": "epsilon_penalty",
    "alpha_mean": "epsilon_mean",
    "alpha_stddev": "epsilon_stddev",
    "alpha_policy": "epsilon_policy",
}


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
@pytest.mark.parametrize("name", INITS)
def test_a_multiplier_that_is_not_positive_is_refused(name: str, value: float) -> None:
    policy = "beta" if name == "alpha_policy" else "gaussian"
    with pytest.raises(ValueError, match=f"of {INITS[name]} must be positive and finite, got"):
        make_loss(policy, **{f"init_{name}": value})


@pytest.mark.parametrize("value", [[0.1, 0.2], "small", None], ids=repr)
def test_a_bound_or_a_multiplier_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="^epsilon_mean is a bound .* must be one number, got"):
        make_loss(epsilon_mean=value)
    if not isinstance(value, list):  # a multiplier may be one for each dimension
        with pytest.raises(TypeError, match="multiplier of epsilon_mean must be a number, got"):
            make_loss(init_alpha_mean=value)


PART_KINDS = {"temperature": 0.5, "e_step": Temperature(0.1, 1.0), "m_step": "gaussian"}


@pytest.mark.parametrize("part", PART_KINDS)
def test_what_cannot_be_a_part_is_refused(part: str) -> None:
    kind = type(PART_KINDS[part]).__name__
    with pytest.raises(TypeError, match=f"^{part} must be a module such as .* got {kind}"):
        make_loss(**{part: PART_KINDS[part]})


@pytest.mark.parametrize(
    ("loss_class", "argument"),
    [
        (MPOLoss, {"temperature": KLMultiplier(0.1, 1.0)}),
        (MPOLoss, {"e_step": EnumeratedEStep(CategoricalTemperature(0.1, 1.0))}),
        (MPOLoss, {"m_step": CategoricalMStep(KLMultiplier(0.1, 1.0))}),
        (DiscreteMPOLoss, {"e_step": SampledEStep(Temperature(0.1, 1.0))}),
        (DiscreteMPOLoss, {"m_step": DistributionMStep(KLMultiplier(0.1, 1.0))}),
        (DiscreteMPOLoss, {"m_step": KLMultiplier(0.1, 1.0)}),
        (VMPOLoss, {"e_step": SampledEStep(Temperature(0.1, 1.0))}),
        (VMPOLoss, {"m_step": DistributionMStep(KLMultiplier(0.1, 1.0))}),
        (VMPOLoss, {"m_step": KLMultiplier(0.1, 1.0)}),
    ],
    ids=str,
)
def test_a_part_of_another_loss_is_refused(loss_class: Any, argument: dict[str, Any]) -> None:
    ((name, part),) = argument.items()
    with pytest.raises(TypeError, match=f"^{name} must be .* such as .* got {type(part).__name__}"):
        loss_class(make_actor(), make_critic(), **argument)


def test_a_temperature_of_another_e_step_is_refused() -> None:
    with pytest.raises(TypeError, match="such as CategoricalTemperature, got Temperature"):
        EnumeratedEStep(Temperature(0.1, 1.0))
    with pytest.raises(TypeError, match="such as Temperature, got ExactTemperature"):
        AdvantageEStep(ExactTemperature(0.1))


@pytest.mark.parametrize("number", [0, -3])
@pytest.mark.parametrize("name", ["num_action_samples", "num_bootstrap_samples"])
def test_fewer_than_one_sample_is_refused(name: str, number: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got {number}"):
        make_loss(**{name: number})


@pytest.mark.parametrize("number", [2.5, "20", None], ids=repr)
@pytest.mark.parametrize("name", ["num_action_samples", "num_bootstrap_samples"])
def test_a_number_of_samples_is_whole(name: str, number: Any) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a whole number, at least 1, got"):
        make_loss(**{name: number})


@pytest.mark.parametrize(
    ("name", "value", "choices"),
    [
        ("e_step_critic", "both", "'online', 'target'"),
        ("reduction", "avg", "'none', 'mean', 'sum'"),
        ("loss_function", "huber", "'l2', 'l1' or 'smooth_l1'"),
        ("parametrization", "relu", "'softplus' or 'exp'"),
        ("scalar_output_mode", "drop", "None, 'exclude', 'non_tensor'"),
        ("use_prioritized_weights", "no", "'auto', True, False"),
    ],
)
def test_an_unknown_choice_is_answered_with_the_known_ones(
    name: str, value: str, choices: str
) -> None:
    with pytest.raises(ValueError, match=f"{name} must be .*{choices}.*got '{value}'"):
        make_loss(**{name: value})


def test_a_temperature_beside_an_e_step_that_has_one_is_refused() -> None:
    with pytest.raises(ValueError, match="SampledEStep has a temperature of its own; give it this"):
        make_loss(temperature=ExactTemperature(0.1), e_step=SampledEStep(Temperature(0.1, 1.0)))


@pytest.mark.parametrize(
    ("part", "argument"),
    [
        ({"e_step": SampledEStep(Temperature(0.1, 1.0))}, {"num_action_samples": 5}),
        ({"e_step": SampledEStep(Temperature(0.1, 1.0))}, {"epsilon": 0.2}),
        ({"temperature": ExactTemperature(0.1)}, {"init_temperature": 2.0}),
        ({"m_step": DistributionMStep(KLMultiplier(0.1, 1.0))}, {"epsilon_mean": 0.2}),
        ({"qvalue_network": ScalarCritic([make_critic()])}, {"loss_function": "l1"}),
    ],
    ids=str,
)
def test_an_argument_that_a_part_brings_itself_is_refused(
    part: dict[str, Any], argument: dict[str, Any]
) -> None:
    (name,) = argument
    with pytest.raises(ValueError, match=f"^{name} is not read beside an own "):
        networks = {"actor_network": make_actor(), "qvalue_network": make_critic()}
        MPOLoss(**{**networks, **part, **argument})


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'epsilonn'"):
        make_loss(epsilonn=0.1)


def test_a_mask_key_that_is_no_key_is_refused() -> None:
    with pytest.raises(ValueError, match="loss_mask_key must be 'auto', None or a NestedKey"):
        make_loss().loss_mask_key = 3


def test_a_critic_that_does_not_read_the_action_is_refused() -> None:
    loss = MPOLoss(make_actor(), make_critic())
    loss.set_keys(action="mine")
    batch = make_batch(4).rename_key_("action", "mine")
    for call in (loss, loss.e_step):
        with pytest.raises(ValueError, match="and not the action 'mine', so that every action"):
            call(batch)
    network = nn.Linear(O, 1)
    critic = ValueOperator(network, in_keys=["observation"], out_keys=["state_action_value"])
    with pytest.raises(ValueError, match="and not the action 'action'"):
        MPOLoss(make_actor(), critic)(make_batch(4))


def test_a_critic_that_reads_what_the_actor_computes_is_refused() -> None:
    loss, _ = shared_encoder_loss(1, as_list=False)
    head = loss.qvalue_network[-1]
    with pytest.raises(ValueError, match="the critic reads 'features', which the actor writes"):
        MPOLoss(loss.actor_network, head)


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
