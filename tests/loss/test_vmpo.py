"""VMPOLoss: what it computes, what each loss trains, how it behaves among TorchRL's losses."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModule
from torch import Tensor, nn
from torchrl.data import Categorical
from torchrl.modules import MaskedCategorical, Ordinal, ProbabilisticActor
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
    losses = loss(td)
    torch.testing.assert_close(losses["loss_critic"], expected)
    torch.testing.assert_close(losses["state_value"], value.mean().detach())


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


def test_without_a_terminated_flag_done_ends_the_return() -> None:
    loss, td = make_loss("index"), make_batch("index", 2, 5, advantage=False)
    td["next", "done"] = td["next", "terminated"].clone()
    expected = loss(td)
    del td["next", "terminated"]
    torch.testing.assert_close(loss(td), expected)


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
def test_updates_raise_the_probability_of_the_good_actions_near_the_reference(
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
        assert readings[name.replace("alpha", "kl")] < 4 * bound  # multipliers still rise


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


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
