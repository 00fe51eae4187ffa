"""The recipes that record a data set and learn from it: from a shell, and as functions."""

from __future__ import annotations

import dataclasses
import json
import re
import sys

import gymnasium
import pytest
import torch

from mpo_torchrl.dual import ExactTemperature, FixedTemperature, Temperature
from mpo_torchrl.trainer import (
    MPOConfig,
    OfflineConfig,
    SettingError,
    VMPOConfig,
    evaluate,
    make_env,
    make_evaluation_env,
    make_loss,
)
from mpo_torchrl.trainer.command_line import run_from_command_line
from mpo_torchrl.trainer.evaluation import load_policy
from recipes import mpo, offline, record, vmpo
from tests.trainer.data_sets import record_random
from tests.trainer.small import SETTINGS as OF_MPO
from tests.trainer.small import same_figures

NAME = "pendulum/random-v0"
SETTINGS = {
    "dataset": NAME,
    "seed": 3,
    "total_timesteps": 8,
    "hidden": 16,
    "batch_size": 16,
    "eval_every": 4,
    "eval_episodes": 1,
    "progress_bar": False,
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(folder, **settings):
    return offline.train(OfflineConfig(run_dir=str(folder), **{**SETTINGS, **settings}))


def test_it_learns_without_a_step_of_the_environment(folder) -> None:
    returns = torch.tensor(record_random(NAME, episodes=3))
    metrics = train(folder / "run")
    assert (metrics["env_steps"], metrics["updates"]) == (0, 8)
    assert (metrics["dataset_steps"], metrics["dataset_episodes"]) == (600, 3)
    assert metrics["behaviour_return_mean"] == pytest.approx(returns.mean().item(), rel=1e-5)
    assert metrics == json.loads((folder / "run/metrics.json").read_text())
    assert {path.name for path in (folder / "run").iterdir()} == {
        "settings.json",
        "progress.csv",
        "learning_curve.png",
        "metrics.json",
        "checkpoint.zip",
        "best.zip",
        "resume",
        ".lock",
    }


@pytest.mark.parametrize(
    "settings", [{}, {"normalize_observation": True, "policy": "tanh_normal", "reward_scale": 0.1}]
)
def test_a_run_that_goes_on_equals_one_that_was_never_interrupted(settings, folder) -> None:
    record_random(NAME)
    whole = train(folder / "whole", **settings)
    part = train(folder / "parts", total_timesteps=4, **settings)
    assert part["state_sha256"] != whole["state_sha256"]
    assert train(folder / "parts", **settings)["state_sha256"] == whole["state_sha256"]
    with pytest.raises(SettingError, match=r"other settings \(dataset=.*not pendulum/other-v0\)"):
        record_random("pendulum/other-v0")
        train(folder / "parts", dataset="pendulum/other-v0", **settings)


def test_a_finished_run_ends_again_with_the_same_figures(folder) -> None:
    record_random(NAME)
    assert same_figures(train(folder / "run"), train(folder / "run"))


def test_its_checkpoint_is_evaluated_without_the_recipe(folder) -> None:
    record_random(NAME)
    metrics = train(folder / "run")
    policy, config, counters = load_policy(folder / "run" / "checkpoint.zip")
    assert counters == {"env_steps": 0, "updates": 8} and isinstance(config, OfflineConfig)
    assert evaluate(make_evaluation_env(config), policy).mean().item() == metrics["mean_reward"]


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"temperature": "learned"}, Temperature),
        ({"temperature": "exact"}, ExactTemperature),
        ({"temperature": "fixed"}, FixedTemperature),
        ({"temperature": "infinite"}, FixedTemperature),
    ],
)
def test_the_settings_of_the_e_step_arrive(settings, kind) -> None:
    config = OfflineConfig(
        **{**SETTINGS, "epsilon": 0.3, "init_temperature": 2.0, "n_action_samples": 7},
        max_weight=5.0,
        **settings,
    )
    _, loss = make_loss(make_env("Pendulum-v1"), config)
    e_step = loss._e_step
    assert (e_step.num_action_samples, e_step.max_weight) == (7, 5.0)
    assert type(e_step.temperature) is kind
    if kind is FixedTemperature:
        expected = 2.0 if settings["temperature"] == "fixed" else float("inf")
        assert e_step.temperature().item() == expected
    else:
        assert e_step.temperature.epsilon.item() == pytest.approx(0.3)


def run(recipe, argv, monkeypatch, capsys) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["recipe", *argv])
    recipe()
    return capsys.readouterr().out.splitlines()


def learn() -> None:
    configs = offline.Path(offline.__file__).parent / "configs" / "offline"
    run_from_command_line(offline.train, configs, "train on a data set", OfflineConfig)


def test_from_a_shell_a_data_set_is_recorded_and_learned_from(folder, monkeypatch, capsys) -> None:
    mpo.train(MPOConfig(**OF_MPO, run_dir=str(folder / "agent")))
    capsys.readouterr()
    arguments = [f"dataset={NAME}", "episodes=2", "progress_bar=false"]
    lines = run(record.main, ["run=agent", *arguments], monkeypatch, capsys)
    assert lines[0] == f"2 episodes of Pendulum-v1 in data set {NAME}"
    recorded = float(lines[-1].removeprefix("mean_reward: "))
    arguments = [f"{name}={value}" for name, value in SETTINGS.items()]
    lines = run(learn, [*arguments, "run_dir=results"], monkeypatch, capsys)
    metrics = json.loads((folder / "results/metrics.json").read_text())
    assert lines[-1] == f"mean_reward: {metrics['mean_reward']}"
    assert metrics["behaviour_return_mean"] == pytest.approx(recorded, rel=1e-5)


def test_help_lists_what_can_be_set_and_nothing_else(monkeypatch, capsys) -> None:
    text = "\n".join(run(learn, ["--help"], monkeypatch, capsys))
    assert "max_weight" in text and "learning_starts" not in text
    text = "\n".join(run(record.main, ["--help"], monkeypatch, capsys))
    assert all(f"  {field.name} " in text for field in dataclasses.fields(record.Settings))


def test_the_agent_that_is_recorded_is_that_of_the_run(folder) -> None:
    mpo.train(MPOConfig(**OF_MPO, run_dir=str(folder / "agent")))
    settings = record.Settings(
        dataset=NAME, run="agent", episodes=2, mean_action=True, progress_bar=False
    )
    found = record.record(settings)
    policy, _, _ = load_policy(folder / "agent" / "checkpoint.zip")
    env, returns = gymnasium.make("Pendulum-v1"), [0.0, 0.0]
    for seed in range(2):
        observation, _ = env.reset(seed=seed)
        for _ in range(200):
            observation, reward, *_ = env.step(policy(observation).numpy())
            returns[seed] += reward
    assert found["mean_reward"] == pytest.approx(sum(returns) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "dataset must be the id of the new data set"),
        (["dataset=pendulum/x-v0"], "run or env must be set"),
        (["dataset=x"], "dataset must be an id such as pendulum/medium-v0"),
        (["dataset=pendulum/x-v0", "episodes=0"], "episodes must be at least 1, got 0"),
        (["dataset=pendulum/x-v0", "seed=-1"], "seed must be between 0 and 2147483547, got -1"),
        (["dataset=pendulum/x-v0", f"seed={2**32}"], "seed must be between 0 and 2147483547"),
        (["dataset=pendulum/x-v0", "run=nowhere"], "checkpoint 'nowhere/checkpoint.zip' does not"),
        (["dataset=pendulum/x-v0", "env=CartPole-v1"], "must have continuous actions"),
        (["dataset=walker/x-v0", "env=dm_control/walker-walk"], "are of Gymnasium environments"),
        (["data=x"], "'data=x' is no setting; write dataset=, run="),
    ],
)
def test_a_wrong_recording_is_one_sentence(arguments, sentence, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["record.py", *arguments])
    with pytest.raises(SystemExit):
        record.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and sentence in line


@pytest.mark.parametrize(
    ("setting", "value", "plain"),
    [
        ("action_repeat", 2, 1),
        ("hidden_observation", [2], []),
        ("recurrent", "gru", "none"),
        ("epsilons", [0.1, 0.1], []),
    ],
)
def test_an_agent_that_sees_or_is_paid_otherwise_is_not_recorded(
    setting, value, plain, folder, monkeypatch
) -> None:
    beside = {"sequence_length": 4} if setting == "recurrent" else {}
    agent = MPOConfig(**OF_MPO, **beside, **{setting: value})
    monkeypatch.setattr(record, "load_policy", lambda _: (None, agent, {}))
    settings = record.Settings(dataset="pendulum/x-v0", run="any")
    with pytest.raises(SettingError, match=re.escape(f"run must have {setting}={plain}, got")):
        record.record(settings)


def test_an_agent_of_v_mpo_is_recorded(folder) -> None:
    settings = {"total_timesteps": 32, "num_envs": 2, "steps_per_batch": 32, "batch_size": 16}
    beside = {"hidden": 16, "eval_episodes": 1, "progress_bar": False, "run_dir": str(folder / "v")}
    vmpo.train(VMPOConfig(env="Pendulum-v1", **settings, **beside))
    found = record.record(
        record.Settings(dataset=NAME, run=str(folder / "v"), episodes=1, progress_bar=False)
    )
    assert (found["env"], found["episodes"]) == ("Pendulum-v1", 1)


@pytest.mark.parametrize(
    ("config", "description"),
    [
        (MPOConfig(), "MPO after 20 steps"),
        (VMPOConfig(), "V-MPO after 20 steps"),
        (OfflineConfig(dataset=NAME), "offline MPO after 8 updates"),
    ],
)
def test_a_data_set_says_who_played(config, description) -> None:
    assert record.describe_agent(config, {"env_steps": 20, "updates": 8}) == description


def test_a_wrong_run_is_one_sentence(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["offline.py", f"dataset={NAME}"])
    with pytest.raises(SystemExit) as stopped:
        learn()
    assert stopped.value.code == 2
    assert f"error: dataset {NAME!r} is not there as" in capsys.readouterr().err


if __name__ == "__main__":
    pytest.main([__file__])
