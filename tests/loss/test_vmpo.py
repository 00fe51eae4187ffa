"""VMPOLoss: what it computes, what each loss trains, how it behaves among TorchRL's losses."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModule
from torch import Tensor, nn
from torch import distributions as d
from torchrl.data import Categorical
from torchrl.modules import (
    IndependentNormal,
    MaskedCategorical,
    Ordinal,
    ProbabilisticActor,
    ValueOperator,
)
from torchrl.objectives import A2CLoss, HardUpdate, SoftUpdate, ValueEstimators
from torchrl.objectives.value import GAE

import mpo_torchrl.functional as F
from mpo_torchrl import VMPOLoss
from mpo_torchrl.modules import make_value_network
from mpo_torchrl.targets import FusedSoftUpdate
from tests.loss.builders import A, O, move_policy, snapshot, total, trained_groups
from tests.loss.vmpo_builders import (
    CHOICES,
    GAUSSIANS,
    POLICIES,
    alphas,
    losses_of,
    make_actor,
    make_batch,
    make_loss,
    shared_encoder_loss,
)

EVERY_POLICY = pytest.mark.parametrize("policy", POLICIES)
LOSSES = {"loss_critic", "loss_temperature", "loss_actor", "loss_alpha"}


# -- what it computes ---------------------------------------------------------------------


def price_of_kl(policy: str, output: TensorDict) -> Tensor:
    size = A if policy in GAUSSIANS else 1
    kls = [output[name] * output[name.replace("alpha", "kl")] for name in alphas(policy)]
    return size * sum(kls)


@pytest.mark.parametrize("batch", [(8,), (4, 2), (2, 2, 2)], ids=str)
@EVERY_POLICY
def test_the_actor_loss_is_the_weighted_likelihood_and_the_price_of_the_kl(
    policy: str, batch: tuple[int, ...]
) -> None:
    loss, td = move_policy(make_loss(policy)), make_batch(policy, *batch)
    output = loss(td)
    weight = F.vmpo_weights(td["advantage"].squeeze(-1), loss.temperature())
    with loss.actor_network_params.to_module(loss.actor_network):
        action = td["action"].long() if td["action"].dtype == torch.bool else td["action"]
        log_prob = loss.actor_network.get_dist(td).log_prob(action)
    log_prob = log_prob.reshape(*batch, -1).sum(-1)
    expected = -(weight * log_prob).sum() + price_of_kl(policy, output)
    torch.testing.assert_close(output["loss_actor"], expected)


@EVERY_POLICY
def test_the_critic_learns_the_value_target(policy: str) -> None:
    loss, td = make_loss(policy, critic_coeff=0.5), make_batch(policy, 6)
    with loss.critic_network_params.to_module(loss.critic_network):
        value = loss.critic_network(td.copy())["state_value"]
    expected = 0.5 * (value - td["value_target"]).square().mean()
    torch.testing.assert_close(loss(td)["loss_critic"], expected)


@pytest.mark.parametrize("top_k_fraction", [0.5, 1.0])
@pytest.mark.parametrize("init_temperature", [0.3, 1.0, 20.0])
def test_slope_of_the_temperature_is_its_bound_minus_the_kl_spent(
    init_temperature: float, top_k_fraction: float
) -> None:
    settings = {"init_temperature": init_temperature, "top_k_fraction": top_k_fraction}
    loss = make_loss("index", **settings).double()
    output = loss(make_batch("index", 12, dtype=torch.float64).double())
    (slope,) = torch.autograd.grad(output["loss_temperature"], loss.temperature.raw)
    per_raw = torch.sigmoid(loss.temperature.raw.detach())  # of softplus
    expected = loss.epsilon - output["kl_e_step"]
    torch.testing.assert_close(slope / per_raw, expected, rtol=1e-6, atol=1e-9)


def test_the_worse_half_of_the_batch_teaches_the_policy_nothing() -> None:
    loss = make_loss("index", init_alpha_policy=1e-6)
    td = make_batch("index", 8)
    td["advantage"] = torch.arange(8.0).unsqueeze(-1)
    gradients = []
    for action in (0, 1):
        td["action"][:4] = action
        gradients.append(torch.autograd.grad(loss(td)["loss_actor"], loss.network_parameters()[:2]))
    torch.testing.assert_close(*gradients, rtol=0, atol=0)
    assert gradients[0][0].any()


@EVERY_POLICY
def test_without_an_advantage_it_computes_that_of_gae(policy: str) -> None:
    loss = make_loss(policy)
    loss.make_value_estimator(gamma=0.9, lmbda=0.8)
    td = make_batch(policy, 2, 5, advantage=False)
    with_advantage = td.copy()
    with torch.no_grad(), loss.critic_network_params.to_module(loss.critic_network):
        GAE(gamma=0.9, lmbda=0.8, value_network=loss.critic_network)(with_advantage)
    for key, value in loss(with_advantage).items():
        torch.testing.assert_close(loss(td)[key], value, msg=key)
    assert "advantage" not in td.keys()  # the batch is left as it was


@pytest.mark.parametrize("name", ["TD0", "TD1", "TDLambda", "GAE", "VTrace"])
def test_every_value_estimator_of_its_list_trains_it(name: str) -> None:
    loss = make_loss("tanh_normal").make_value_estimator(ValueEstimators[name], gamma=0.9)
    td = make_batch("tanh_normal", 2, 5, advantage=False)
    td["action_log_prob"] = torch.zeros(2, 5)
    total(loss(td)).backward()
    assert all(p.grad is not None for p in loss.network_parameters())
    assert float(loss.value_estimator.gamma) == pytest.approx(0.9)


def test_an_own_value_estimator_is_taken() -> None:
    loss = make_loss("index")
    gae = GAE(gamma=0.5, lmbda=0.5, value_network=make_value_network(O, num_cells=(8,)))
    assert loss.make_value_estimator(gae).value_estimator is gae


# -- importance, restarts, masks ----------------------------------------------------------


def test_importance_weights_are_read_from_the_batch() -> None:
    loss, td = make_loss("index"), make_batch("index", 8)
    td["importance_weight"] = torch.rand(8)
    weight = F.vmpo_weights(
        td["advantage"].squeeze(-1), 1.0, importance_weight=td["importance_weight"]
    )
    expected = F.effective_sample_size(weight)
    torch.testing.assert_close(loss(td)["effective_sample_size"], expected)


def test_importance_weights_are_the_ratio_of_target_to_behaviour_cut_at_their_maximum() -> None:
    loss, td = make_loss("index", max_importance_weight=1.0), make_batch("index", 8)
    with loss.target_actor_network_params.to_module(loss.actor_network):
        log_prob = loss.actor_network.get_dist(td).log_prob(td["action"]).detach()
    td["action_log_prob"] = log_prob + torch.tensor([-1.0, 1.0]).repeat(4)
    found = loss(td)["effective_sample_size"]
    td["importance_weight"] = torch.tensor([1.0, torch.tensor(-1.0).exp()]).repeat(4)
    torch.testing.assert_close(found, loss(td)["effective_sample_size"])
    assert found != make_loss("index")(td.exclude("importance_weight"))["effective_sample_size"]


def test_a_policy_without_event_dimensions_has_one_importance_weight_a_step() -> None:
    def read(distribution: type, log_prob: Tensor) -> Tensor:
        torch.manual_seed(0)
        loss = make_loss("gaussian", max_importance_weight=1.0)
        loss.actor_network[-1].distribution_class = distribution
        td = make_batch("gaussian", 8)
        td["action_log_prob"] = log_prob
        return loss(td)["effective_sample_size"]

    log_prob = torch.randn(8, 2)
    found = read(d.Normal, log_prob)
    torch.testing.assert_close(found, read(IndependentNormal, log_prob.sum(-1)))


def test_choices_side_by_side_are_one_step() -> None:
    network = nn.Sequential(nn.Linear(O, 6), nn.Unflatten(-1, (2, 3)))
    actor = ProbabilisticActor(
        TensorDictModule(network, ["observation"], ["logits"]),
        in_keys=["logits"],
        distribution_class=d.Categorical,
        return_log_prob=True,
    )
    for size in (2, 5):  # as many steps as choices, too
        td = make_batch("index", size)
        td["action"] = torch.randint(3, (size, 2))
        loss = VMPOLoss(actor, make_value_network(O, num_cells=(8,)), reduction="none")
        assert loss(td)["loss_actor"].shape == (size,)


def test_weights_that_are_not_finite_are_refused() -> None:
    for key in ("importance_weight", "restarting_weight", "action_log_prob"):
        td = make_batch("index", 8)
        td[key] = torch.full((8,), float("nan"))
        with pytest.raises(ValueError, match=f"8 of the 8 numbers under '{key}' are NaN"):
            make_loss("index", max_importance_weight=1.0)(td)


def test_a_step_that_begins_done_teaches_the_policy_nothing_if_restarts_are_ignored() -> None:
    loss, td = make_loss("index", ignore_restarts=True), make_batch("index", 8)
    td["done"] = torch.zeros(8, 1, dtype=torch.bool)
    td["done"][3] = True
    found = loss(td)
    td["restarting_weight"] = (~td["done"]).float()
    given = make_loss("index")
    given.load_state_dict(loss.state_dict())
    td["advantage"][3] = 1000.0
    torch.testing.assert_close(found["effective_sample_size"], given(td)["effective_sample_size"])


@EVERY_POLICY
def test_masked_steps_are_as_if_they_were_not_there(policy: str) -> None:
    loss, td = move_policy(make_loss(policy)), make_batch(policy, 12)
    mask = torch.arange(12) % 3 != 0
    expected = loss(td[mask])
    td["mine"] = mask
    td["advantage"][~mask], td["observation"][~mask] = torch.nan, torch.nan
    loss.loss_mask_key = "mine"
    found = loss(td)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, msg=key)
    gradients = torch.autograd.grad(total(found), list(loss.parameters()))
    expected_gradients = torch.autograd.grad(total(expected), list(loss.parameters()))
    torch.testing.assert_close(gradients, expected_gradients)


def test_a_batch_that_is_masked_whole_is_finite() -> None:
    loss, td = make_loss("gaussian"), make_batch("gaussian", 6)
    td["mine"] = torch.zeros(6, dtype=torch.bool)
    loss.loss_mask_key = "mine"
    output = loss(td)
    total(output).backward()
    assert all(bool(value.isfinite().all()) for value in output.values())
    assert all(bool(p.grad.isfinite().all()) for p in loss.parameters())


# -- who learns what ----------------------------------------------------------------------


@pytest.mark.parametrize("delay_actor", [True, False])
@EVERY_POLICY
def test_each_loss_trains_its_own_parameters_alone(policy: str, delay_actor: bool) -> None:
    loss = move_policy(make_loss(policy, delay_actor=delay_actor))
    losses = losses_of(loss(make_batch(policy, 2, 4, advantage=False)))
    assert {key: trained_groups(loss, value) for key, value in losses.items()} == {
        "loss_critic": {"critic"},
        "loss_actor": {"actor"},
        "loss_temperature": {"temperature"},
        "loss_alpha": set(alphas(policy)),
    }


@EVERY_POLICY
def test_neither_advantages_nor_actions_nor_targets_learn(policy: str) -> None:
    loss, td = make_loss(policy), make_batch(policy, 8)
    keys = ["advantage", "value_target"] + (["action"] if policy in GAUSSIANS else [])
    leaves = {key: td[key].clone().requires_grad_() for key in keys}
    total(loss(td.update(leaves))).backward()
    assert [key for key, leaf in leaves.items() if leaf.grad is not None] == []


@EVERY_POLICY
def test_diagnostics_are_detached_scalars_under_the_out_keys(policy: str) -> None:
    loss = make_loss(policy)
    output = loss(make_batch(policy, 4, 2))
    assert list(output.keys()) == loss.out_keys and set(losses_of(output)) == LOSSES
    for key in set(output.keys()) - LOSSES:
        assert output[key].shape == () and not output[key].requires_grad, key


@pytest.mark.parametrize("separate_losses", [True, False])
def test_a_shared_encoder_is_trained_by_the_critic_unless_losses_are_separate(
    separate_losses: bool,
) -> None:
    loss, encoder = shared_encoder_loss(separate_losses=separate_losses)
    loss.double()
    loss(make_batch("tanh_normal", 6).double())["loss_critic"].backward()
    weight = loss.actor_network_params["module", "0", "module", "0", "module", "weight"]
    assert (weight.grad is None) == separate_losses
    assert len(loss.network_parameters()) == 6  # the encoder's once


# -- reference policy and updaters --------------------------------------------------------


@pytest.mark.parametrize(
    "make_updater",
    [
        lambda loss: HardUpdate(loss, value_network_update_interval=0),
        lambda loss: SoftUpdate(loss, tau=0.999999),
        lambda loss: FusedSoftUpdate(loss, tau=0.999999),
    ],
    ids=["hard", "soft", "fused"],
)
@EVERY_POLICY
def test_an_updater_makes_the_policy_the_next_reference(policy: str, make_updater) -> None:
    loss, td = move_policy(make_loss(policy)), make_batch(policy, 8)
    kls = [f"kl_{name.removeprefix('alpha_')}" for name in alphas(policy)]
    before = loss(td)
    make_updater(loss).step()
    after = loss(td)
    for kl in kls:
        assert before[kl] > 1e-5 and after[kl] < 1e-6


@EVERY_POLICY
def test_without_a_target_the_kl_is_zero_and_still_holds_the_policy(policy: str) -> None:
    loss = move_policy(make_loss(policy, delay_actor=False))
    output = loss(make_batch(policy, 8))
    for name in alphas(policy):
        kl = output[name.replace("alpha", "kl")]
        torch.testing.assert_close(kl, torch.zeros(()), rtol=0, atol=1e-6)
    assert not [name for name in loss.state_dict() if "target_actor" in name]


@EVERY_POLICY
def test_updates_raise_the_probability_of_the_good_actions_within_the_trust_region(
    policy: str,
) -> None:
    bounds = {"epsilon_policy": 0.05, "epsilon_mean": 0.02, "epsilon_stddev": 0.02}
    loss, td = make_loss(policy, **bounds), make_batch(policy, 64)
    optimizer = torch.optim.Adam(
        [
            {"params": loss.network_parameters(), "lr": 1e-3},
            {"params": loss.dual_parameters(), "lr": 0.3},
        ]
    )
    before = loss(td)["loss_actor"]  # at its reference the policy pays nothing
    for _ in range(150):
        optimizer.zero_grad()
        output = loss(td)
        total(output).backward()
        optimizer.step()
    readings = loss(td)
    assert readings["loss_actor"] - price_of_kl(policy, readings) < before
    for name in alphas(policy):
        bound = float(getattr(loss, name.replace("alpha", "epsilon")))
        assert readings[name.replace("alpha", "kl")] < 10 * bound


# -- among TorchRL's losses ---------------------------------------------------------------


@EVERY_POLICY
def test_it_takes_the_modules_and_the_batch_of_a2c(policy: str) -> None:
    actor, critic = make_actor(policy), make_value_network(O, num_cells=(8,))
    td = make_batch(policy, 2, 5, advantage=False)
    td["action"] = td["action"].long() if policy == "one_hot" else td["action"]
    kwargs = {"entropy_bonus": False}
    losses = [A2CLoss(actor, critic, **kwargs), VMPOLoss(actor, critic)]
    a2c, vmpo = (set(loss.in_keys) for loss in losses)
    assert a2c == vmpo
    for loss in losses:
        total(loss(td)).backward()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@EVERY_POLICY
def test_reductions_agree(policy: str, reduction: str) -> None:
    loss, td = move_policy(make_loss(policy)), make_batch(policy, 4, 2)
    expected = losses_of(loss(td))
    loss.reduction, loss.out_keys = reduction, None
    for key, value in losses_of(loss(td)).items():
        assert value.shape == ((4, 2) if reduction == "none" else ())
        mean = value.mean() if reduction == "none" else value / (8 if reduction == "sum" else 1)
        torch.testing.assert_close(mean, expected[key], msg=key)


def test_entries_are_found_under_nested_names() -> None:
    names = {
        "advantage": ("a", "advantage"),
        "value_target": ("a", "target"),
        "value": ("a", "value"),
        "action": ("a", "action"),
        "reward": ("a", "reward"),
        "done": ("a", "done"),
        "terminated": ("a", "terminated"),
    }
    actor = make_actor("gaussian", in_key=("a", "observation"), out_key=("a", "action"))
    critic = make_value_network(
        O, num_cells=(8,), in_key=("a", "observation"), out_key=("a", "value")
    )
    loss = VMPOLoss(actor, critic)
    loss.set_keys(**names)
    plain = make_batch("gaussian", 2, 4, advantage=False)
    renamed = TensorDict(batch_size=[2, 4])
    for key, value in plain.items(True, True):
        where = ("next", "a", key[1]) if isinstance(key, tuple) else ("a", key)
        renamed[where] = value
    assert set(loss.in_keys) == set(renamed.keys(True, True))
    same = VMPOLoss(make_actor("gaussian"), make_value_network(O, num_cells=(8,)))
    same.load_state_dict(loss.state_dict())
    for key, value in loss(renamed).items():
        torch.testing.assert_close(value, same(plain)[key], msg=key)


def test_it_is_called_with_tensors() -> None:
    loss, td = make_loss("index"), make_batch("index", 6, advantage=False)
    inputs = {("_".join(k) if isinstance(k, tuple) else k): td[k] for k in loss.in_keys}
    found = dict(zip(loss.out_keys, loss(**inputs), strict=True))
    for key, value in loss(td).items():
        torch.testing.assert_close(found[key], value, msg=key)


def test_a_reset_draws_networks_and_duals_anew_and_the_target_follows() -> None:
    loss = move_policy(make_loss("index"))
    loss.temperature = 7.0
    before = snapshot(loss.network_parameters())
    loss.reset_parameters_recursive()
    assert any((a != b).any() for a, b in zip(before, loss.network_parameters(), strict=True))
    torch.testing.assert_close(
        loss.actor_network_params.data, loss.target_actor_network_params.data
    )
    assert loss.temperature().item() == pytest.approx(1.0)


@pytest.mark.parametrize("how", ["deepcopy", "state_dict"])
@EVERY_POLICY
def test_a_copy_gives_the_same_numbers(policy: str, how: str) -> None:
    loss, td = move_policy(make_loss(policy)), make_batch(policy, 2, 4, advantage=False)
    other = copy.deepcopy(loss)
    if how == "state_dict":
        other = make_loss(policy)
        other.load_state_dict(loss.state_dict())
    for key, value in loss(td).items():
        torch.testing.assert_close(other(td)[key], value, rtol=0, atol=0, msg=key)
    assert not {id(p) for p in other.parameters()} & {id(p) for p in loss.parameters()}


@EVERY_POLICY
def test_it_runs_in_double_precision(policy: str) -> None:
    loss = make_loss(policy).to(torch.float64)
    td = make_batch(policy, 6)
    td = td.apply(lambda t: t.double() if t.is_floating_point() else t)
    assert {value.dtype for value in loss(td).values()} == {torch.float64}


@pytest.mark.parametrize("policy", ["gaussian", "tanh_normal", "one_hot", "index"])
def test_the_loss_is_one_graph_and_gives_the_same_numbers(policy: str) -> None:
    torch.compiler.reset()
    loss, td = move_policy(make_loss(policy)), make_batch(policy, 8)
    expected = loss(td)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        for key, value in compiled(td).items():
            torch.testing.assert_close(value, expected[key], msg=key)
    torch.compiler.reset()


# -- other kinds of categorical policies --------------------------------------------------


class WithMask(nn.Module):
    """Logits, and which choices are allowed: never the last."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(O, CHOICES)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.linear(observation)
        return logits, torch.arange(CHOICES).expand_as(logits) < CHOICES - 1


def masked_actor() -> ProbabilisticTensorDictSequential:
    return ProbabilisticActor(
        TensorDictModule(WithMask(), ["observation"], ["logits", "mask"]),
        in_keys=["logits", "mask"],
        distribution_class=MaskedCategorical,
        spec=Categorical(CHOICES),
    )


def test_masked_actions_leave_everything_finite() -> None:
    loss = move_policy(VMPOLoss(masked_actor(), make_value_network(O, num_cells=(8,))))
    td = make_batch("index", 8)
    td["action"] = td["action"].clamp(max=CHOICES - 2)
    output = loss(td)
    total(output).backward()
    assert output["kl_policy"] > 0 and output["entropy"] > 0
    assert all(bool(p.grad.isfinite().all()) for p in loss.parameters())


def test_an_ordinal_policy_has_the_bound_of_a_categorical_one() -> None:
    actor = ProbabilisticActor(
        TensorDictModule(nn.Linear(O, CHOICES), ["observation"], ["scores"]),
        in_keys={"scores": "scores"},
        distribution_class=Ordinal,
        spec=Categorical(CHOICES),
    )
    loss = move_policy(VMPOLoss(actor, make_value_network(O, num_cells=(8,))))
    assert list(loss.multipliers()) == ["temperature", "alpha_policy"]
    assert loss(make_batch("index", 8))["kl_policy"] > 0


# -- errors -------------------------------------------------------------------------------


def drop(*keys):
    return lambda td: td.exclude(*keys)


def put(key, value):
    return lambda td: td.set(key, value)


BAD_BATCHES = [
    ("index", drop("value_target"), KeyError, "no entry 'value_target'"),
    ("index", drop("action"), KeyError, "no entry 'action'"),
    ("index", drop("observation"), KeyError, "no entry 'observation'"),
    ("index", drop("advantage", ("next", "reward")), KeyError, r"\('next', 'reward'\)"),
    (
        "index",
        put("advantage", torch.zeros(6, 2)),
        ValueError,
        r"'advantage' and 'value_target' must both be \[\*B, 1\], got \[6, 2\] and \[6, 1\]",
    ),
    (
        "index",
        put("action", torch.zeros(6, 3)),
        ValueError,
        r"actions of shape \[6, 3\] under 'action', the policy's are \[6\]",
    ),
    (
        "one_hot",
        put("action", torch.zeros(6, dtype=torch.long)),
        ValueError,
        r"actions of shape \[6\] under 'action', the policy's are \[6, 3\]",
    ),
    ("gaussian", put("action", torch.zeros(6, 3)), ValueError, r"the policy's are \[6, 2\]"),
    ("index", put("advantage", torch.full((6, 1), torch.nan)), ValueError, "6 of the 6"),
    ("index", lambda td: td[:0], ValueError, "the batch is empty"),
    ("index", lambda td: td[:1], ValueError, "leaves none of 1 steps"),
]


@pytest.mark.parametrize(
    ("policy", "change", "kind", "sentence"),
    BAD_BATCHES,
    ids=[f"{policy}-{sentence}" for policy, _, _, sentence in BAD_BATCHES],
)
def test_a_bad_batch_is_named(policy: str, change, kind, sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        make_loss(policy)(change(make_batch(policy, 6)))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"top_k_fraction": 0.0}, r"top_k_fraction must be in \(0, 1\], got 0.0"),
        ({"epsilon": 0.0}, "epsilon is a bound on a KL divergence and must be positive"),
        ({"epsilon_policy": -1.0}, "epsilon_policy is a bound"),
        ({"loss_critic_type": "l3"}, "loss_critic_type must be one of"),
        ({"reduction": "max"}, "reduction must be one of"),
        ({"max_importance_weight": 0.0}, "max_importance_weight must be positive or None"),
    ],
    ids=str,
)
def test_an_impossible_setting_is_named(settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make_loss("index", **settings)


def test_a_missing_done_flag_is_named_if_restarts_are_ignored() -> None:
    with pytest.raises(KeyError, match="no entry 'done'"):
        make_loss("index", ignore_restarts=True)(make_batch("index", 6))


def test_a_missing_behaviour_log_probability_is_named() -> None:
    with pytest.raises(KeyError, match="no entry 'action_log_prob'"):
        make_loss("index", max_importance_weight=1.0)(make_batch("index", 6))


def test_a_value_key_that_the_critic_does_not_write_is_named() -> None:
    with pytest.raises(KeyError, match="value key 'v' not found in value network out_keys"):
        make_loss("index").set_keys(value="v")


def test_a_critic_of_two_values_is_named() -> None:
    critic = ValueOperator(nn.Linear(O, 2), in_keys=["observation"])
    with pytest.raises(ValueError, match=r"as \[\*B, 1\] = \[6, 1\], got \[6, 2\]"):
        VMPOLoss(make_actor("index"), critic)(make_batch("index", 6))


def test_networks_of_the_wrong_kind_are_named() -> None:
    with pytest.raises(TypeError, match="must be a TensorDict module such as torchrl's Value"):
        VMPOLoss(make_actor("index"), nn.Linear(O, 1))
    with pytest.raises(TypeError, match="must be a stochastic policy"):
        VMPOLoss(make_value_network(O), make_value_network(O))


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
