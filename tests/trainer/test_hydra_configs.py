"""MPO from TorchRL's own configurations."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torchrl.objectives import SACLoss
from torchrl.trainers.algorithms import SACTrainer
from torchrl.trainers.algorithms.configs.objectives import SACLossConfig
from torchrl.trainers.algorithms.configs.trainers import SACTrainerConfig

from mpo_torchrl import MPOLoss
from mpo_torchrl.trainer.hydra_configs import (
    SAC_ONLY,
    MPOLossConfig,
    MPOTrainerConfig,
    make_mpo_loss,
)

CONFIGURATION = Path(__file__).with_name("sac_trainer.yaml")
LEFT_OUT = pytest.mark.filterwarnings("ignore:loss. mpo has no alpha_init, target_entropy")


def fields(config):
    return {f.name: f for f in dataclasses.fields(config) if not f.name.startswith("_")}


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Composes TorchRL's configuration with a loss and a trainer, and builds what it describes."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)

    def build(algorithm, *overrides):
        text = CONFIGURATION.read_text().replace("ALGORITHM", algorithm)
        (tmp_path / "config.yaml").write_text(text)
        with initialize_config_dir(config_dir=str(tmp_path), version_base="1.3"):
            return instantiate(compose("config", overrides=list(overrides)).trainer)

    return build


def test_the_loss_has_a_field_for_every_argument_with_its_default():
    arguments = inspect.signature(MPOLoss).parameters
    found = fields(MPOLossConfig)
    assert set(found) == {*arguments, "gamma", *SAC_ONLY}
    for name, argument in arguments.items():
        if argument.default is not inspect.Parameter.empty:
            assert found[name].default == argument.default, name


def test_the_loss_takes_every_field_of_sac():
    assert set(fields(SACLossConfig)) <= set(fields(MPOLossConfig))
    assert not set(SAC_ONLY) & set(inspect.signature(MPOLoss).parameters)


def test_the_trainer_has_a_field_for_every_argument_with_its_default():
    arguments = inspect.signature(SACTrainer).parameters
    found = fields(MPOTrainerConfig)
    helpers = {"create_env_fn", "actor_network", "critic_network", "hooks"}  # of SACTrainerConfig
    assert set(found) == {*arguments, *helpers, "dual_lr"}
    for name, field in fields(SACTrainerConfig).items():
        assert found[name].default == field.default, name


@LEFT_OUT
@pytest.mark.parametrize(("algorithm", "loss"), [("sac", SACLoss), ("mpo", MPOLoss)])
def test_two_names_turn_sac_into_mpo(build, algorithm, loss, tmp_path):
    trainer = build(algorithm)
    assert type(trainer.loss_module) is loss
    before = [p.detach().clone() for p in trainer.loss_module.parameters()]
    trainer.train()
    assert trainer.collected_frames == 60
    assert trainer._optim_count == 12  # four a batch
    after = trainer.loss_module.parameters()
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    logged = {path.stem for path in (tmp_path / "logs/pendulum/scalars").iterdir()}
    assert {"loss_actor", "loss_qvalue"} <= logged
    assert ("temperature" in logged) == (algorithm == "mpo")


@LEFT_OUT
@pytest.mark.parametrize(("dual_lr", "expected"), [("0.02", 0.02), ("null", 3e-4)])
def test_duals_learn_at_a_rate_of_their_own(build, dual_lr, expected):
    trainer = build("mpo", f"trainer.dual_lr={dual_lr}")
    rates = {
        id(parameter): group["lr"]
        for group in trainer.optimizer.param_groups
        for parameter in group["params"]
    }
    duals = [id(parameter) for parameter in trainer.loss_module.dual_parameters()]
    assert {rates[dual] for dual in duals} == {expected}
    assert {rate for key, rate in rates.items() if key not in duals} == {3e-4}
    assert len(rates) == len(list(trainer.loss_module.parameters()))


@LEFT_OUT
def test_arguments_of_the_loss_arrive(build):
    trainer = build(
        "mpo",
        "loss.epsilon=0.3",
        "loss.gamma=0.9",
        "loss.scoring_dtype=float32",
        "loss.delay_actor=false",
    )
    loss = trainer.loss_module
    assert loss.epsilon.item() == pytest.approx(0.3)
    assert loss.value_estimator.gamma.item() == pytest.approx(0.9)
    assert loss.scoring_dtype is torch.float32
    assert not loss.delay_actor


@LEFT_OUT
def test_a_partial_loss_gets_the_networks_of_the_trainer(build):
    trainer = build(
        "mpo",
        "loss._partial_=true",
        "loss.actor_network=null",
        "loss.qvalue_network=null",
        "+trainer.actor_network=${models.policy_model}",
        "+trainer.critic_network=${models.qvalue_model}",
    )
    assert isinstance(trainer.loss_module, MPOLoss)


def test_what_only_sac_has_is_left_out_with_a_warning(build):
    with pytest.warns(UserWarning, match="loss: mpo has no alpha_init, target_entropy; left out"):
        build("mpo")


def test_a_discrete_sac_is_refused():
    with pytest.raises(ValueError, match="loss: mpo is for continuous actions"):
        make_mpo_loss(discrete=True)


def test_an_unknown_precision_is_refused(build):
    with pytest.raises(Exception, match="scoring_dtype"):
        build("mpo", "loss.scoring_dtype=float99")


def test_importing_the_trainer_registers_both_names():
    code = """
import mpo_torchrl.trainer
from hydra.core.config_store import ConfigStore
for group in ("loss", "trainer"):
    assert "mpo.yaml" in ConfigStore.instance().list(group)
    assert "sac.yaml" in ConfigStore.instance().list(group)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    pytest.main([__file__])
