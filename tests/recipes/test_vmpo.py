"""The recipe of V-MPO: from a shell, and as a function."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mpo_torchrl.trainer import SettingError, VMPOConfig, evaluate, make_evaluation_env
from mpo_torchrl.trainer.evaluation import load_policy
from recipes import vmpo
from tests.trainer.small import same_figures

RECIPE = Path(__file__).parents[2] / "recipes" / "vmpo.py"
SETTINGS = {
    "seed": 3,
    "total_timesteps": 64,
    "num_envs": 2,
    "steps_per_batch": 32,
    "batch_size": 16,
    "epochs": 2,
    "hidden": 16,
    "eval_every": 32,
    "eval_episodes": 1,
    "progress_bar": False,
}


def train(**settings):
    return vmpo.train(VMPOConfig(**{**SETTINGS, **settings}))


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, str(RECIPE), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize(
    ("env", "diagnostics"),
    [
        ("CartPole-v1", {"alpha_policy", "kl_policy"}),
        ("Pendulum-v1", {"alpha_mean", "kl_mean", "alpha_stddev", "kl_stddev", "policy_stddev"}),
    ],
)
def test_it_learns_with_the_policy_that_the_actions_ask_for(env, diagnostics, tmp_path):
    metrics = train(env=env, run_dir=str(tmp_path))
    assert (metrics["env_steps"], metrics["updates"]) == (64, 2 * 2 * 2)
    assert diagnostics <= metrics.keys()
    written = json.loads((tmp_path / "settings.json").read_text())
    assert written["policy"] == ("categorical" if env == "CartPole-v1" else "gaussian")
    assert {path.name for path in tmp_path.iterdir()} == {
        "settings.json",
        "progress.csv",
        "learning_curve.png",
        "metrics.json",
        "checkpoint.zip",
        "best.zip",
        "resume",
        ".lock",
    }


def test_its_checkpoint_is_evaluated_without_the_recipe(tmp_path):
    metrics = train(run_dir=str(tmp_path))
    policy, config, counters = load_policy(tmp_path / "checkpoint.zip")
    assert counters == {"env_steps": 64, "updates": 8}
    returns = evaluate(make_evaluation_env(config), policy)
    assert returns.mean().item() == metrics["mean_reward"]


def test_a_squashed_policy_learns(tmp_path):
    metrics = train(env="Pendulum-v1", policy="tanh_normal", run_dir=str(tmp_path))
    assert metrics["kl_mean"] >= 0


def test_a_run_that_goes_on_equals_one_that_was_never_interrupted(tmp_path):
    whole = train(run_dir=str(tmp_path / "whole"), checkpoint_every=32)
    train(run_dir=str(tmp_path / "parts"), checkpoint_every=32, total_timesteps=32)
    parts = train(run_dir=str(tmp_path / "parts"), checkpoint_every=32)
    assert parts["env_steps"] == whole["env_steps"] == 64
    assert parts["state_sha256"] == whole["state_sha256"]


def test_a_finished_run_ends_again_with_the_same_figures(tmp_path):
    first = train(run_dir=str(tmp_path))
    assert "kl_policy" in first
    assert same_figures(train(run_dir=str(tmp_path)), first)


def test_every_parameter_is_trained(tmp_path, monkeypatch):
    seen = {}
    make = vmpo.make_vmpo_loss

    def spy(env, config):
        actor, loss = make(env, config)
        seen["loss"] = loss
        seen["before"] = {k: v.clone() for k, v in loss.state_dict().items()}
        return actor, loss

    monkeypatch.setattr(vmpo, "make_vmpo_loss", spy)
    train(run_dir=str(tmp_path))
    parameters = {name for name, _ in seen["loss"].named_parameters()}
    after = seen["loss"].state_dict()
    still = {k for k in parameters if torch.equal(after[k], seen["before"][k])}
    assert still == set()
    loss = seen["loss"]
    torch.testing.assert_close(
        loss.target_actor_network_params.data, loss.actor_network_params.data
    )  # the next batch is that policy's


def test_the_command_line_ends_with_the_mean_reward(tmp_path):
    arguments = [f"{name}={value}" for name, value in SETTINGS.items()]
    process = run(*arguments, "run_dir=results", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    label, number = process.stdout.splitlines()[-1].split(": ")
    metrics = json.loads((tmp_path / "results/metrics.json").read_text())
    assert label == "mean_reward" and float(number) == metrics["mean_reward"]


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("top_k=0.1", "'top_k' is not a setting; the nearest one is 'top_k_fraction'."),
        ("gamma=2", "gamma must be a number >= 0 and <= 1, got 2.0."),
    ],
)
def test_a_wrong_setting_is_one_sentence(argument, sentence, tmp_path):
    process = run(argument, cwd=tmp_path)
    assert process.returncode == 2
    assert process.stderr.strip() == f"error: {sentence}"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"batch_size": 500}, r"batch_size must divide the 2048 steps collected at once, got 500"),
        ({"top_k_fraction": 0.001}, r"top_k_fraction \* batch_size \(512\) must be at least 1"),
        ({"init_stddev": 0.001}, r"init_stddev must be > min_stddev \(0.01\), got 0.001"),
        ({"max_stddev": 0.5}, r"max_stddev must be > init_stddev \(0.5\), or 0 for no limit"),
    ],
    ids=["batch_size", "top_k_fraction", "init_stddev", "max_stddev"],
)
def test_settings_that_do_not_fit_together_are_named(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        VMPOConfig(**settings)


def test_help_speaks_of_no_presets_where_there_are_none(tmp_path):
    output = run("--help", cwd=tmp_path).stdout
    assert "top_k_fraction" in output
    assert "preset" not in output.lower()


def test_a_policy_that_does_not_fit_the_actions_is_named(tmp_path):
    with pytest.raises(SettingError, match="learn those with policy=categorical"):
        train(env="CartPole-v1", policy="gaussian", run_dir=str(tmp_path))


def test_an_unknown_environment_is_named(tmp_path):
    with pytest.raises(SettingError, match="env 'Nowhere-v0' cannot be made"):
        train(env="Nowhere-v0", run_dir=str(tmp_path))


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
