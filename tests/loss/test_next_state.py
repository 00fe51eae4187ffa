"""``e_step_critic="next"``: one pass of the target critics for the bootstrap and the E-step."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from mpo_torchrl.loss.actor_critic import ActorCriticLoss
from tests.loss.builders import make_batch, make_loss

SHAPES = pytest.mark.parametrize("shape", [(6,), (2, 3)])


@SHAPES
def test_the_policy_is_improved_at_the_next_state(shape) -> None:
    loss = make_loss(e_step_critic="next")
    batch = make_batch(*shape)
    improved = loss.e_step(batch)["e_step"]
    actor = loss.actor_network_params
    with torch.no_grad(), actor.to_module(loss.actor_network, preserve_module_state=False):
        policy = loss.actor_network.get_dist(batch["next"].copy())
    assert_close(improved["loc"], policy.mean)


@SHAPES
def test_the_target_averages_the_values_of_the_e_step(shape) -> None:
    loss = make_loss(e_step_critic="next").make_value_estimator(gamma=0.9)
    batch = loss.e_step(make_batch(*shape))
    value = batch["e_step", "state_action_value"].mean(-1, keepdim=True)
    following = batch["next"]
    target = following["reward"] + 0.9 * value * (~following["terminated"])
    loss.qvalue_loss(batch)
    with torch.no_grad():
        prediction = loss.critic.predict(batch, loss.qvalue_network_params)
    assert_close(batch["td_error"], (prediction - target.squeeze(-1)).abs().amax(0))


def test_the_critics_make_one_pass_less(monkeypatch) -> None:
    calls = []
    predict = ActorCriticLoss._predict

    def counted(self, states, action, params, hidden_dtype=None):
        calls.append(hidden_dtype)
        return predict(self, states, action, params, hidden_dtype)

    monkeypatch.setattr(ActorCriticLoss, "_predict", counted)
    make_loss(e_step_critic="next")(make_batch(6))
    assert calls == [None]  # and a pass that is a critic's target is not reduced in precision
    calls.clear()
    make_loss()(make_batch(6))
    assert len(calls) == 2


def test_the_e_step_alone_names_the_next_state_that_is_missing() -> None:
    batch = make_batch(4)
    del batch["next", "observation"]
    with pytest.raises(KeyError, match=r"no entry \('next', 'observation'\)"):
        make_loss(e_step_critic="next").e_step(batch)


def test_every_loss_teaches_whom_it_should() -> None:
    loss = make_loss(e_step_critic="next")
    loss(make_batch(6))["loss_actor"].backward()
    actor = set(loss.actor_network_params.parameters())
    for parameter in loss.parameters():
        assert (parameter.grad is not None) == (parameter in actor)


if __name__ == "__main__":
    pytest.main([__file__])
