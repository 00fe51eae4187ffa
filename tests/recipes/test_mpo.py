"""The recipe as a person runs it: from a shell, in some folder."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mpo_torchrl.trainer import MPOTrainer
from recipes import mpo
from tests.trainer.small import SETTINGS, same_figures, small_config

RECIPE = Path(__file__).parents[2] / "recipes" / "mpo.py"
SHORT = [f"{name}={value}" for name, value in SETTINGS.items()]


def run(*arguments, cwd, timeout=120):
    return subprocess.run(
        [sys.executable, str(RECIPE), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A short run: the process and the folder it ran in."""
    folder = tmp_path_factory.mktemp("run")
    arguments = [*SHORT, "total_timesteps=2_00", "run_dir=results"]
    return run(*arguments, cwd=folder), folder


def test_the_last_line_is_the_mean_reward(finished):
    process, folder = finished
    assert process.returncode == 0, process.stderr
    label, number = process.stdout.splitlines()[-1].split(": ")
    assert label == "mean_reward"
    assert float(number) == json.loads((folder / "results/metrics.json").read_text())["mean_reward"]


def test_there_is_a_line_an_evaluation(finished):
    process, _ = finished
    steps = [line.split()[0] for line in process.stdout.splitlines()[:-1]]
    assert steps == ["30", "60", "90", "120", "150", "180", "200"]


def test_the_folder_holds_curve_table_metrics_and_checkpoint_and_nothing_is_beside_it(finished):
    _, folder = finished
    assert [path.name for path in folder.iterdir()] == ["results"]
    assert {path.name for path in (folder / "results").iterdir()} == {
        "settings.json",
        "progress.csv",
        "learning_curve.png",
        "metrics.json",
        "checkpoint.zip",
        "best.zip",
        "resume",
        ".lock",
    }


def test_metrics_hold_the_promised_figures(finished):
    _, folder = finished
    metrics = json.loads((folder / "results/metrics.json").read_text())
    assert metrics["env_steps"] == 200
    assert metrics["updates"] == 170
    assert (metrics["env"], metrics["seed"], metrics["eval_episodes"]) == ("Pendulum-v1", 3, 1)
    assert {"eval_return_mean", "eval_return_stddev", "wall_seconds"} < set(metrics)


def test_the_table_has_a_row_an_evaluation(finished):
    _, folder = finished
    rows = list(csv.DictReader((folder / "results/progress.csv").open()))
    assert [row["env_steps"] for row in rows] == ["30", "60", "90", "120", "150", "180", "200"]
    assert float(rows[-1]["temperature"]) > 0


def test_the_trainer_learns_bitwise_the_same(finished):
    _, folder = finished
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    trainer = MPOTrainer.from_config(small_config(total_timesteps=200))
    trainer.train()
    torch.set_num_threads(threads)
    recipe = MPOTrainer.load(folder / "results/checkpoint.zip").loss_module.state_dict()
    for name, value in trainer.loss_module.state_dict().items():
        assert not torch.is_tensor(value) or torch.equal(value, recipe[name]), name


@pytest.mark.parametrize(
    "settings",
    [
        {"num_envs": 2, "n_step": 3, "normalize_observation": True, "reward_scale": 0.1},
        {"max_grad_norm": 1.0, "critic_lr": 1e-3, "target_period": 7, "e_step_critic": "next"},
    ],
    ids=["collecting", "learning"],
)
def test_recipe_and_trainer_agree_bitwise_on_other_settings_too(settings, tmp_path):
    config = small_config(run_dir=str(tmp_path), total_timesteps=100, **settings)
    mpo.train(config)
    recipe = MPOTrainer.load(tmp_path / "checkpoint.zip").loss_module.state_dict()
    trainer = MPOTrainer.from_config(dataclasses.replace(config, run_dir=""))
    trainer.train()
    for name, value in trainer.loss_module.state_dict().items():
        assert not torch.is_tensor(value) or torch.equal(value, recipe[name]), name


def test_a_finished_run_ends_again_with_the_same_figures(tmp_path):
    config = small_config(run_dir=str(tmp_path))
    assert same_figures(mpo.train(config), mpo.train(config))


def test_a_wrong_setting_ends_in_one_sentence(tmp_path):
    process = run("epsilon=0", cwd=tmp_path)
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr == "error: epsilon must be a number > 0, got 0.0.\n"
    assert list(tmp_path.iterdir()) == []


def test_multirun_trains_one_agent_a_seed_and_leaves_only_their_folders(tmp_path):
    process = run("--multirun", *SHORT[1:], "run_dir=seed_${seed}", "seed=1,2", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("mean_reward: ") == 2
    assert {path.name for path in tmp_path.iterdir()} == {"seed_1", "seed_2"}


@pytest.mark.parametrize("processes", [False, True])
def test_ctrl_c_saves_and_ends_cleanly(processes, tmp_path):
    arguments = [*SHORT, "total_timesteps=1_000_000", "run_dir=results"]
    if processes:
        arguments += ["num_envs=2", "env_processes=true"]
    process = subprocess.Popen(
        [sys.executable, str(RECIPE), *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()  # the first evaluation: the loop is running
    os.killpg(process.pid, signal.SIGINT)  # to all its processes, as a terminal does
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "KeyboardInterrupt" not in errors
    assert output.splitlines()[-1].startswith("mean_reward: ")
    loaded = MPOTrainer.load(tmp_path / "results" / "checkpoint.zip")
    metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())
    assert loaded.collected_frames == metrics["env_steps"] < 1_000_000


def test_ctrl_c_in_a_first_batch_without_a_transition_ends_cleanly(tmp_path, monkeypatch):
    @contextmanager
    def at_once():
        yield SimpleNamespace(received=True)

    monkeypatch.setattr(mpo, "stop_request", at_once)
    config = small_config(run_dir=str(tmp_path), n_step=4, steps_per_batch=4, utd_ratio=0.25)
    assert mpo.train(config)["env_steps"] == 4


def test_the_last_steps_of_several_environments_may_be_one_each(tmp_path):
    config = small_config(
        num_envs=4, sequence_length=4, total_timesteps=68, learning_starts=24, run_dir=str(tmp_path)
    )
    assert mpo.train(config)["env_steps"] == 68


if __name__ == "__main__":
    pytest.main([__file__])
