from __future__ import annotations

import sys

import pytest
import torch
from tensordict import NestedKey, TensorDict
from torchrl.data import (
    Binary,
    Bounded,
    Categorical,
    Composite,
    MultiCategorical,
    MultiOneHot,
    OneHot,
    Unbounded,
)
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import IndependentNormal, TanhNormal

from mpo_torchrl.modules import (
    GaussianHead,
    make_actor,
    make_discrete_actor,
    make_discrete_critics,
)

LOW, HIGH = torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 10.0])
SPEC = Bounded(LOW, HIGH)
MIDDLE, HALF = torch.tensor([0.0, 5.0]), torch.tensor([2.0, 5.0])
KINDS = pytest.mark.parametrize("policy", ["gaussian", "tanh_normal"])


def kind_of(value: object) -> str:
    return type(value).__name__


def states(*batch: int, dtype: torch.dtype = torch.float32) -> TensorDict:
    return TensorDict(observation=torch.randn(*batch, 3, dtype=dtype), batch_size=batch)


# -- the head -----------------------------------------------------------------------------


@pytest.mark.parametrize("max_stddev", [None, 2.1])
@pytest.mark.parametrize("init_stddev", [0.1, 0.5, 2.0])
def test_an_output_of_zero_is_the_middle_with_the_initial_stddev(
    init_stddev: float, max_stddev: float | None
) -> None:
    head = GaussianHead(
        MIDDLE, HALF, init_stddev=init_stddev, min_stddev=1e-6, max_stddev=max_stddev
    )
    loc, scale = head(torch.zeros(7, 4))
    torch.testing.assert_close(loc, MIDDLE.expand(7, 2))
    torch.testing.assert_close(scale, (init_stddev * HALF).expand(7, 2))


@pytest.mark.parametrize("min_stddev", [1e-4, 0.01, 0.2])
def test_outputs_are_fractions_of_half_the_range(min_stddev: float) -> None:
    head = GaussianHead(MIDDLE, HALF, init_stddev=0.5, min_stddev=min_stddev)
    features = torch.randn(7, 4)
    loc, scale = head(features)
    bias = torch.tensor(0.5 - min_stddev).expm1().log()
    torch.testing.assert_close(loc, MIDDLE + HALF * features[:, :2])
    softplus = torch.nn.functional.softplus(features[:, 2:] + bias)
    torch.testing.assert_close(scale, HALF * (softplus + min_stddev), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("least", "most"), [(0.01, 0.6), (0.2, 0.6), (0.2, 3.0)])
def test_between_its_limits_the_stddev_is_a_sigmoid(least: float, most: float) -> None:
    head = GaussianHead(MIDDLE, HALF, init_stddev=0.5, min_stddev=least, max_stddev=most)
    features = torch.randn(3, 7, 4)
    loc, scale = head(features)
    share = torch.sigmoid(features[..., 2:] + torch.tensor((0.5 - least) / (most - least)).logit())
    torch.testing.assert_close(loc, MIDDLE + HALF * features[..., :2])
    torch.testing.assert_close(scale, HALF * (least + (most - least) * share))


@pytest.mark.parametrize("max_stddev", [None, 0.6])
@pytest.mark.parametrize("min_stddev", [1e-6, 0.01])
def test_the_stddev_stays_above_its_minimum(min_stddev: float, max_stddev: float | None) -> None:
    head = GaussianHead(MIDDLE, HALF, min_stddev=min_stddev, max_stddev=max_stddev)
    _, scale = head(torch.full((1, 4), -1e4))
    torch.testing.assert_close(scale, min_stddev * HALF.unsqueeze(0))


@pytest.mark.parametrize("max_stddev", [0.6, 3.0])
def test_the_stddev_stays_below_its_maximum(max_stddev: float) -> None:
    head = GaussianHead(MIDDLE, HALF, max_stddev=max_stddev)
    _, scale = head(torch.full((1, 4), 1e4))
    torch.testing.assert_close(scale, max_stddev * HALF.unsqueeze(0))


def test_between_its_limits_the_stddev_grows_with_the_output() -> None:
    head = GaussianHead(MIDDLE, HALF, min_stddev=0.2, max_stddev=0.6)
    features = torch.linspace(-5.0, 5.0, 50).unsqueeze(1).expand(50, 4).requires_grad_()
    _, scale = head(features)
    (slope,) = torch.autograd.grad(scale.sum(), features)
    assert (slope[:, 2:] > 0).all()
    assert (slope[:, :2] == 0).all()


@pytest.mark.parametrize(("init", "least"), [(0.1, 0.1), (0.1, 0.2), (0.5, 0.0), (0.5, -1.0)])
def test_impossible_stddevs_are_refused(init: float, least: float) -> None:
    with pytest.raises(ValueError, match="init_stddev must be above min_stddev"):
        GaussianHead(MIDDLE, HALF, init_stddev=init, min_stddev=least)


@pytest.mark.parametrize("most", [0.5, 0.1, 0.0])
def test_a_maximum_below_the_initial_stddev_is_refused(most: float) -> None:
    with pytest.raises(ValueError, match=f"max_stddev must be above init_stddev, got {most}"):
        GaussianHead(MIDDLE, HALF, init_stddev=0.5, max_stddev=most)


def test_the_head_moves_with_its_network() -> None:
    head = GaussianHead(MIDDLE, HALF).double()
    loc, scale = head(torch.zeros(1, 4, dtype=torch.float64))
    assert loc.dtype == scale.dtype == torch.float64
    assert set(head.state_dict()) == {"middle", "half_range"}


# -- the actor ----------------------------------------------------------------------------


@KINDS
def test_the_first_policy_is_nearly_the_same_everywhere(policy: str) -> None:
    actor = make_actor(3, SPEC, policy=policy, init_stddev=0.4)
    td = actor(states(200))
    middle, half = (MIDDLE, HALF) if policy == "gaussian" else (torch.zeros(2), torch.ones(2))
    assert ((td["loc"] - middle) / half).abs().max() < 0.05
    assert (td["scale"] / half - 0.4).abs().max() < 0.05


def test_a_squashed_policy_reaches_its_whole_range_and_no_further() -> None:
    actor = make_actor(3, SPEC, policy="tanh_normal", init_stddev=3.0)
    action = actor(states(2000))["action"]
    assert (action >= LOW).all() and (action <= HIGH).all()
    assert (action.amin(0) < LOW + 0.05 * HALF).all() and (
        action.amax(0) > HIGH - 0.05 * HALF
    ).all()


def test_an_unsquashed_policy_covers_its_range() -> None:
    action = make_actor(3, SPEC, init_stddev=0.5)(states(2000))["action"]
    assert (action.amin(0) < LOW).all() and (action.amax(0) > HIGH).all()


@KINDS
def test_the_policy_samples_unless_it_is_told_not_to(policy: str) -> None:
    actor, td = make_actor(3, SPEC, policy=policy), states(4)
    assert (actor(td.copy())["action"] != actor(td.copy())["action"]).all()
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        first, second = actor(td.copy()), actor(td.copy())
    assert (first["action"] == second["action"]).all()
    mean = first["loc"] if policy == "gaussian" else MIDDLE + HALF * first["loc"].tanh()
    torch.testing.assert_close(first["action"], mean)


@KINDS
def test_the_distribution_is_of_the_kind_asked_for(policy: str) -> None:
    dist = make_actor(3, SPEC, policy=policy).get_dist(states(4))
    assert type(dist) is {"gaussian": IndependentNormal, "tanh_normal": TanhNormal}[policy]


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)], ids=str)
@KINDS
def test_actions_have_the_batch_of_the_states(policy: str, batch: tuple) -> None:
    assert make_actor(3, SPEC, policy=policy)(states(*batch))["action"].shape == (*batch, 2)


@pytest.mark.parametrize("out_key", ["act", ("agent", "act")], ids=str)
@pytest.mark.parametrize("in_key", ["state", ("agent", "state")], ids=str)
def test_keys_may_be_nested(in_key: NestedKey, out_key: NestedKey) -> None:
    actor = make_actor(3, SPEC, in_key=in_key, out_key=out_key)
    td = TensorDict(batch_size=4).set(in_key, torch.randn(4, 3))
    assert actor(td)[out_key].shape == (4, 2)
    assert actor.spec[out_key] == SPEC


@KINDS
def test_a_spec_of_parallel_environments_will_do(policy: str) -> None:
    spec = Bounded(LOW.expand(5, 2).clone(), HIGH.expand(5, 2).clone())
    actor = make_actor(3, spec, policy=policy)
    assert actor(states(5))["action"].shape == (5, 2)


@KINDS
@pytest.mark.parametrize("spec_dtype", [torch.float32, torch.float64], ids=str)
def test_the_network_has_the_default_precision_whatever_the_spec(
    policy: str, spec_dtype: torch.dtype
) -> None:
    spec = Bounded(LOW.to(spec_dtype), HIGH.to(spec_dtype), dtype=spec_dtype)
    td = make_actor(3, spec, policy=policy)(states(4))
    assert td["loc"].dtype == td["scale"].dtype == td["action"].dtype == torch.float32


def test_an_unbounded_space_is_measured_in_ones() -> None:
    td = make_actor(3, Unbounded(2), init_stddev=0.5)(states(50))
    assert td["loc"].abs().max() < 0.05 and (td["scale"] - 0.5).abs().max() < 0.05


def test_a_space_bounded_by_the_largest_numbers_counts_as_unbounded() -> None:
    largest = torch.finfo(torch.float32).max
    td = make_actor(3, Bounded(-largest, largest, (2,)), init_stddev=0.5)(states(50))
    assert td["action"].isfinite().all() and (td["scale"] - 0.5).abs().max() < 0.05


@pytest.mark.parametrize("layer_norm", [True, False])
def test_the_width_and_the_norm_are_as_asked(layer_norm: bool) -> None:
    actor = make_actor(3, SPEC, num_cells=(5, 6, 7), layer_norm=layer_norm)
    widths = [m.out_features for m in actor.modules() if isinstance(m, torch.nn.Linear)]
    assert widths == [5, 6, 7, 4]
    assert any(isinstance(m, torch.nn.LayerNorm) for m in actor.modules()) == layer_norm


def test_a_dimension_without_a_choice_is_refused() -> None:
    spec = Bounded(torch.tensor([-1.0, 2.0]), torch.tensor([1.0, 2.0]))
    with pytest.raises(ValueError, match=r"a low below its high, got low \[-1.0, 2.0\] and high"):
        make_actor(3, spec)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="policy must be 'gaussian' or 'tanh_normal', got 'beta'"):
        make_actor(3, SPEC, policy="beta")


@pytest.mark.parametrize("spec", [Unbounded(2), Bounded(LOW, torch.full((2,), torch.inf))])
def test_a_squashed_policy_needs_bounds(spec) -> None:
    with pytest.raises(ValueError, match="this action space has none; use policy='gaussian'"):
        make_actor(3, spec, policy="tanh_normal")


@pytest.mark.parametrize("spec", [Composite(action=SPEC), OneHot(3), Categorical(3)], ids=kind_of)
def test_a_spec_that_is_no_vector_of_real_numbers_is_refused(spec) -> None:
    with pytest.raises(ValueError, match="must be of one vector of real numbers, Bounded or Unb"):
        make_actor(3, spec)


@pytest.mark.parametrize(
    "spec", [MultiOneHot([2, 3]), MultiCategorical([2, 3]), Binary(3)], ids=kind_of
)
def test_several_discrete_choices_are_refused(spec) -> None:
    for make in (make_discrete_actor, make_discrete_critics):
        with pytest.raises(ValueError, match="must be one discrete choice, OneHot or Categorical"):
            make(3, spec)


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
