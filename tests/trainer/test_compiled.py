from __future__ import annotations

import os
import shutil

import pytest
import torch

from mpo_torchrl.trainer import MPOTrainer, SettingError
from tests.trainer.small import small_config

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler"
)


def run(folder, **settings):
    trainer = MPOTrainer.from_config(small_config(run_dir=str(folder), **settings))
    return trainer, trainer.train()


@needs_compiler
def test_a_compiled_run_draws_and_learns_what_an_eager_one_does(tmp_path):
    (eager, _), (compiled, _) = (
        run(tmp_path / f"{compile}", compile=compile) for compile in (False, True)
    )
    expected = dict(eager.loss_module.named_parameters())
    for name, parameter in compiled.loss_module.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-3, atol=1e-4)


@needs_compiler
def test_a_continued_compiled_run_ends_as_an_uninterrupted_one(tmp_path):
    settings = {"compile": True, "checkpoint_every": 50}
    whole = run(tmp_path / "whole", **settings)[1]
    run(tmp_path / "parts", **settings, total_timesteps=50)
    parts = run(tmp_path / "parts", **settings)[1]
    assert parts["state_sha256"] == whole["state_sha256"]


@needs_compiler
def test_the_first_batch_is_looked_at_for_numbers_that_are_not_finite():
    trainer = MPOTrainer.from_config(small_config(compile=True))
    keys = trainer.loss_module.in_keys
    batch = next(iter(trainer.collector)).select(*keys)
    batch["observation"][0] = float("inf")
    with pytest.raises(ValueError, match="observation"):
        trainer.stepper.loss(batch)


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SettingError, match=r"needs a C\+\+ compiler on a CPU.*'no-such-compiler'"):
        MPOTrainer.from_config(small_config(compile=True))


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_recurrent_networks_are_refused_before_the_first_step(cell):
    settings = {"recurrent": cell, "sequence_length": 4, "state_size": 4}
    with pytest.raises(SettingError, match="compile=true cannot compile recurrent networks"):
        MPOTrainer.from_config(small_config(compile=True, **settings))


if __name__ == "__main__":
    pytest.main([__file__])
