from __future__ import annotations

import os
import shutil

import pytest
import torch

from mpo_torchrl.trainer import MPOTrainer, SettingError, make_training_env
from mpo_torchrl.trainer.policy_delay import CriticLoss
from tests.trainer.small import small_config

CRITIC = "qvalue_network"


def trainer_of(**settings):
    return MPOTrainer.from_config(small_config(utd_ratio=0.4, policy_delay=2, **settings))


def moved_by_one_update(trainer, update):
    """The names of the parameters that the n-th update from here on moves."""
    for _ in range(update - 1):
        step(trainer)
    before = {name: p.detach().clone() for name, p in trainer.loss_module.named_parameters()}
    step(trainer)
    after = dict(trainer.loss_module.named_parameters())
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def step(trainer):
    trainer.stepper.step(trainer, trainer.replay_buffer.sample())


KINDS = {
    "scalar": {},
    "c51": {"critic": "c51"},
    "e_step_at_the_next_state": {"e_step_critic": "next"},
    "discrete": {"policy": "categorical", "env": "CartPole-v1"},
}


@pytest.fixture(params=KINDS)
def trainer(request):
    trainer = trainer_of(**KINDS[request.param])
    trainer.replay_buffer.extend(make_training_env(trainer.config).rollout(20))
    return trainer


def test_the_updates_between_move_every_critic_and_nothing_else(trainer):
    every = {name for name, _ in trainer.loss_module.named_parameters()}
    moved = moved_by_one_update(trainer, 1)
    assert moved == {name for name in every if name.startswith(CRITIC)}


def test_every_second_update_is_of_all_parts(trainer):
    every = {name for name, _ in trainer.loss_module.named_parameters()}
    moved = moved_by_one_update(trainer, 2)
    assert {name for name in every if name.startswith("actor_network")} <= moved
    assert {name for name in every if name.endswith(".raw")} <= moved  # the duals


def test_the_critics_gradient_is_that_of_the_whole_loss(trainer):
    loss = trainer.loss_module
    batch = loss.e_step(trainer.replay_buffer.sample())  # so that both draw the bootstrap alone
    expected = gradients(loss, lambda: loss(batch.clone()))
    found = gradients(loss, lambda: CriticLoss(loss)(batch.clone()))
    assert all(name.startswith(CRITIC) for name in found)
    torch.testing.assert_close(found, expected)


def gradients(loss, make_losses):
    loss.zero_grad()
    torch.manual_seed(0)
    make_losses()["loss_qvalue"].backward()
    return {name: p.grad.clone() for name, p in loss.named_parameters() if p.grad is not None}


def test_a_continued_run_ends_as_an_uninterrupted_one(tmp_path):
    def run(folder, **settings):
        return trainer_of(run_dir=str(tmp_path / folder), checkpoint_every=50, **settings).train()

    whole = run("whole")
    run("parts", total_timesteps=50)
    assert run("parts")["state_sha256"] == whole["state_sha256"]


@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler"
)
def test_both_kinds_of_updates_compile(tmp_path):
    def run(compile):
        trainer = trainer_of(run_dir=str(tmp_path / f"{compile}"), compile=compile)
        trainer.train()
        return dict(trainer.loss_module.named_parameters())

    eager, compiled = run(False), run(True)
    for name, parameter in compiled.items():
        torch.testing.assert_close(parameter, eager[name], rtol=1e-3, atol=1e-4)


def test_a_delay_that_leaves_updates_over_is_refused():
    with pytest.raises(SettingError, match=r"policy_delay must divide the 4 updates .* got 3"):
        small_config(utd_ratio=0.4, policy_delay=3)


if __name__ == "__main__":
    pytest.main([__file__])
