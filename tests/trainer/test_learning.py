from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict

from mpo_torchrl.trainer import MPOTrainer, NonFiniteError
from mpo_torchrl.trainer.environment import make_env
from mpo_torchrl.trainer.learning import (
    is_finite,
    make_loss,
    make_optimizer,
    make_target_updater,
    total_loss,
)
from tests.trainer.small import small_config


def test_the_total_sums_losses_and_leaves_diagnostics_out():
    losses = TensorDict(loss_a=torch.tensor(1.0), loss_b=torch.tensor(2.0), kl_mean=torch.ones(()))
    assert total_loss(losses) == 3.0


def test_a_loss_that_is_no_number_is_named():
    losses = TensorDict(loss_a=torch.tensor(1.0), loss_b=torch.tensor(float("nan")))
    with pytest.raises(NonFiniteError, match="'loss_b': nan"):
        total_loss(losses)


def test_every_trainable_parameter_is_in_exactly_one_group():
    config = small_config()
    _, loss = make_loss(make_env(config.env), config)
    groups = [group["params"] for group in make_optimizer(loss, config).param_groups]
    grouped = [id(parameter) for group in groups for parameter in group]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in loss.parameters() if p.requires_grad}


def test_the_duals_have_their_own_learning_rate():
    config = small_config(learning_rate=1e-3, dual_lr=1e-1)
    _, loss = make_loss(make_env(config.env), config)
    network, dual = make_optimizer(loss, config).param_groups
    assert (network["lr"], dual["lr"]) == (1e-3, 1e-1)
    assert {id(p) for p in dual["params"]} == {id(p) for p in loss.dual_parameters()}


def test_a_short_run_moves_every_parameter_and_every_target():
    trainer = MPOTrainer.from_config(small_config())
    before = {
        k: v.clone() for k, v in trainer.loss_module.state_dict().items() if torch.is_tensor(v)
    }
    trainer.train()
    after = trainer.loss_module.state_dict()
    learned = [k for k in before if "_params." in k or "raw" in k]
    assert any("target_actor" in key for key in learned)
    assert any("target_qvalue" in key for key in learned)
    constant = [k for k in learned if torch.equal(before[k], after[k])]
    assert [k for k in constant if not k.endswith(("middle", "half_range"))] == []


def test_targets_take_a_step_of_tau():
    config = small_config(tau=0.25)
    _, loss = make_loss(make_env(config.env), config)
    updater = make_target_updater(loss, config)
    source = next(iter(loss.actor_network_params.values(True, True)))
    target = next(iter(loss.target_actor_network_params.values(True, True)))
    start = target.clone()
    source.data += 1.0
    updater.step()
    torch.testing.assert_close(target, start + 0.25)


@pytest.mark.parametrize(
    ("utd_ratio", "policy_delay", "updates"),
    [(0.1, 1, 3), (1.0, 1, 30), (2.0, 1, 60), (1.0, 2, 30)],
)
def test_targets_move_once_an_update_however_many_a_batch_brings(utd_ratio, policy_delay, updates):
    settings = {"utd_ratio": utd_ratio, "policy_delay": policy_delay}
    trainer = MPOTrainer.from_config(small_config(**settings, tau=0.25))
    loss, step = trainer.loss_module, trainer.optimizer.step
    sources = [*loss.actor_network_params.values(True, True)]
    sources += [*loss.qvalue_network_params.values(True, True)]
    targets = [*loss.target_actor_network_params.values(True, True)]
    targets += [*loss.target_qvalue_network_params.values(True, True)]
    followed = [target.clone() for target in targets]

    def step_and_follow():
        step()
        for mean, source in zip(followed, sources, strict=True):
            mean.lerp_(source.detach(), 0.25)

    trainer.optimizer.step = step_and_follow
    assert trainer.train()["updates"] == updates
    torch.testing.assert_close(followed, targets)


def test_one_nan_anywhere_makes_a_learner_not_finite():
    config = small_config()
    _, loss = make_loss(make_env(config.env), config)
    assert is_finite(loss)
    next(iter(loss.target_qvalue_network_params.values(True, True))).data.view(-1)[0] = float("nan")
    assert not is_finite(loss)


if __name__ == "__main__":
    pytest.main([__file__])
