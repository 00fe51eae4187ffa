"""VMPOLoss weighs steps: those of an older policy, restarts, and what a mask leaves out."""

from __future__ import annotations

import sys

import pytest
import torch
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torch import distributions as d
from torchrl.modules import IndependentNormal, ProbabilisticActor

import mpo_torchrl.functional as F
from mpo_torchrl import VMPOLoss
from mpo_torchrl.modules import make_value_network
from tests.loss.builders import O, move_policy, total
from tests.loss.vmpo_builders import POLICIES, make_batch, make_loss

EVERY_POLICY = pytest.mark.parametrize("policy", POLICIES)


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
    move_policy(loss)
    with loss.target_actor_network_params.to_module(loss.actor_network):
        log_prob = loss.actor_network.get_dist(td).log_prob(td["action"]).detach()
    td["action_log_prob"] = log_prob + torch.tensor([-1.0, 1.0]).repeat(4)
    found = loss(td)["effective_sample_size"]
    td["importance_weight"] = torch.tensor([1.0, torch.tensor(-1.0).exp()]).repeat(4)
    torch.testing.assert_close(found, loss(td)["effective_sample_size"])
    assert found != make_loss("index")(td.exclude("importance_weight"))["effective_sample_size"]


def test_weights_in_the_batch_come_before_those_the_loss_would_compute() -> None:
    td = make_batch("index", 8)
    td["action_log_prob"], td["done"] = torch.randn(8), torch.arange(8).unsqueeze(-1) % 2 == 0
    td["importance_weight"], td["restarting_weight"] = torch.rand(8), (torch.arange(8) > 1).float()
    own = make_loss("index", max_importance_weight=2.0, ignore_restarts=True)
    given = make_loss("index")
    given.load_state_dict(own.state_dict())
    torch.testing.assert_close(own(td), given(td))


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


@pytest.mark.parametrize("key", ["importance_weight", "restarting_weight", "done"])
def test_weights_of_another_shape_are_named(key: str) -> None:
    td = make_batch("index", 8)
    td[key] = torch.ones(8, 3, dtype=torch.bool if key == "done" else None)
    with pytest.raises(ValueError, match=rf"entry '{key}' must be \[\*B\] = \[8\].*got \[8, 3\]"):
        make_loss("index", ignore_restarts=key == "done")(td)


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


@pytest.mark.parametrize("estimator", ["td1", "gae", "vtrace"])
def test_an_advantage_ends_before_steps_that_are_masked(estimator: str) -> None:
    loss = make_loss("gaussian").make_value_estimator(estimator)
    td = make_batch("gaussian", 1, 12, advantage=False)
    td["next", "done"][:], td["next", "terminated"][:] = False, False
    td["action_log_prob"] = torch.zeros(1, 12)
    expected = loss(td[:, :7].clone())
    td["collector", "mask"] = torch.arange(12).expand(1, 12) < 7
    td["observation"][:, 7:], td["next", "reward"][:, 7:] = torch.nan, torch.nan
    found = loss(td)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, msg=key)


@pytest.mark.parametrize("shape", [(3, 4), (12, 1)], ids=str)
def test_a_mask_counts_the_same_however_the_batch_is_laid_out(shape: tuple) -> None:
    loss, td = move_policy(make_loss("gaussian")), make_batch("gaussian", 12)
    loss.loss_mask_key = "mine"
    td["mine"] = torch.arange(12) % 3 != 0
    torch.testing.assert_close(loss(td.reshape(shape)), loss(td))


def test_a_batch_that_is_masked_whole_is_finite() -> None:
    loss, td = make_loss("gaussian"), make_batch("gaussian", 6)
    td["mine"] = torch.zeros(6, dtype=torch.bool)
    loss.loss_mask_key = "mine"
    output = loss(td)
    total(output).backward()
    assert all(bool(value.isfinite().all()) for value in output.values())
    assert all(bool(p.grad.isfinite().all()) for p in loss.parameters())


@pytest.mark.parametrize(
    "settings", [{"max_importance_weight": 2.0}, {"ignore_restarts": True}, {"estimator": "vtrace"}]
)
def test_the_entries_that_it_names_suffice(settings: dict) -> None:
    estimator = settings.pop("estimator", "gae")
    loss = make_loss("index", **settings).make_value_estimator(estimator)
    td = make_batch("index", 2, 5, advantage=False)
    td["action_log_prob"], td["done"] = torch.zeros(2, 5), torch.zeros(2, 5, 1, dtype=torch.bool)
    torch.testing.assert_close(loss(td.select(*loss.in_keys)), loss(td))


def test_v_trace_names_the_log_probability_that_is_missing() -> None:
    loss = make_loss("index").make_value_estimator("vtrace")
    with pytest.raises(KeyError, match="no entry 'action_log_prob'"):
        loss(make_batch("index", 2, 5, advantage=False))


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
