"""VMPOLoss says in one sentence what is wrong with a batch, a setting or a network."""

from __future__ import annotations

import re
import sys

import pytest
import torch
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.modules import ActorValueOperator, ProbabilisticActor, TanhNormal, ValueOperator

from mpo_torchrl import VMPOLoss
from mpo_torchrl.modules import make_value_network
from tests.loss.builders import SPEC, A, O, make_critic
from tests.loss.vmpo_builders import make_actor, make_batch, make_loss


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


@pytest.mark.parametrize("value", ["0.5", None], ids=repr)
def test_a_fraction_that_is_no_number_is_named(value) -> None:
    with pytest.raises(TypeError, match="top_k_fraction must be a number, got"):
        make_loss("index", top_k_fraction=value)


def test_a_missing_done_flag_is_named_if_restarts_are_ignored() -> None:
    with pytest.raises(KeyError, match="no entry 'done'"):
        make_loss("index", ignore_restarts=True)(make_batch("index", 6))


@pytest.mark.parametrize("key", [("next", "done"), ("next", "terminated"), "done"], ids=str)
def test_flags_that_are_no_booleans_are_named(key) -> None:
    batch = make_batch("index", 6).exclude("advantage", "value_target")
    batch["done"] = torch.zeros(6, 1, dtype=torch.bool)
    batch[key] = batch[key].long()
    with pytest.raises(ValueError, match=f"flags under {re.escape(repr(key))} must be booleans"):
        make_loss("index", ignore_restarts=True)(batch)


def test_a_critic_of_actions_is_refused() -> None:
    with pytest.raises(ValueError, match="critic_network must value states.*'action'"):
        VMPOLoss(make_actor("gaussian"), make_critic())


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


def test_a_critic_that_reads_what_the_actor_writes_is_refused() -> None:
    encoder = TensorDictModule(nn.Linear(O, 4), ["observation"], ["hidden"])
    head = TensorDictModule(
        nn.Sequential(nn.Linear(4, 2 * A), NormalParamExtractor()), ["hidden"], ["loc", "scale"]
    )
    policy = ProbabilisticActor(head, ["loc", "scale"], distribution_class=TanhNormal, spec=SPEC)
    model = ActorValueOperator(encoder, policy, ValueOperator(nn.Linear(4, 1), ["hidden"]))
    with pytest.raises(ValueError, match=r"reads 'hidden', which the actor writes.*get_value_op"):
        VMPOLoss(model.get_policy_operator(), model.get_value_head())
    VMPOLoss(model.get_policy_operator(), model.get_value_operator())


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
