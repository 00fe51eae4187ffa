from __future__ import annotations

import csv
import json
import os
import signal

import gymnasium
import numpy as np
import pytest
import torch
from torchrl.trainers import Trainer

from mpo_torchrl.trainer import MPOTrainer, NonFiniteError, SettingError, read_config
from recipes import mpo
from tests.trainer.small import SETTINGS, small_config


def parameters(trainer):
    return [p.detach().clone() for p in trainer.loss_module.parameters()]


def bitwise_equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def run(**settings):
    trainer = MPOTrainer.from_config(small_config(**settings))
    return trainer, trainer.train()


def test_three_lines_train_an_agent():
    trainer = MPOTrainer.from_env("Pendulum-v1", **{**SETTINGS, "n_action_samples": 5})
    metrics = trainer.train(total_timesteps=50)
    assert metrics["mean_reward"] == metrics["eval_return_mean"] < 0
    assert isinstance(trainer, Trainer)


def test_metrics_hold_the_figures_of_the_run():
    _, metrics = run()
    expected = {"env": "Pendulum-v1", "seed": 3, "env_steps": 60, "updates": 30, "eval_episodes": 1}
    assert expected.items() <= metrics.items()
    assert {"eval_return_stddev", "wall_seconds", "kl_e_step", "kl_mean", "kl_stddev"} < set(
        metrics
    )


def test_equal_settings_give_bitwise_equal_parameters_and_returns():
    (first, one), (second, other) = run(), run()
    assert bitwise_equal(parameters(first), parameters(second))
    one.pop("wall_seconds"), other.pop("wall_seconds")
    assert one == other


def test_another_seed_gives_another_policy():
    assert not bitwise_equal(parameters(run()[0]), parameters(run(seed=4)[0]))


def test_env_steps_end_exactly_where_asked():
    _, metrics = run(total_timesteps=57)
    assert metrics["env_steps"] == 57


def test_random_steps_are_replayed_too():
    trainer, _ = run()
    assert len(trainer.replay_buffer) == 60


def test_training_goes_on_where_it_stopped():
    trainer, first = run()
    second = trainer.train(total_timesteps=100)
    assert (first["updates"], second["updates"]) == (30, 70)
    assert len(trainer.replay_buffer) == 100


def test_two_trainings_are_bitwise_one():
    metrics = run(total_timesteps=100)[1]
    halves, _ = run()
    assert halves.train(total_timesteps=100)["state_sha256"] == metrics["state_sha256"]


def test_a_saved_trainer_goes_on_bitwise_in_the_middle_of_an_episode(tmp_path):
    _, whole = run(total_timesteps=100)
    halves, _ = run()
    path = halves.save(tmp_path / "trainer.zip")
    torch.rand(7)  # whatever happens between saving and loading
    metrics = MPOTrainer.load(path).train(total_timesteps=100)
    whole.pop("wall_seconds"), metrics.pop("wall_seconds")
    assert metrics == whole


def test_a_loaded_trainer_leaves_the_folder_of_the_run_alone(tmp_path):
    run(run_dir=str(tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    MPOTrainer.load(tmp_path / "checkpoint.zip").train(total_timesteps=100)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_begun_by_the_recipe_is_continued_by_a_trainer_bitwise(tmp_path):
    mpo.train(small_config(run_dir=str(tmp_path)))
    trainer, metrics = run(run_dir=str(tmp_path), total_timesteps=100)
    assert trainer.collected_frames == 100
    assert metrics["state_sha256"] == run(total_timesteps=100)[1]["state_sha256"]


@pytest.mark.parametrize(
    "settings",
    [
        {"n_step": 3, "buffer_size": 30, "normalize_observation": True},
        {"num_envs": 2, "n_step": 2},
        {"policy": "tanh_normal", "target_period": 7},
        {"env": "dm_control/cartpole-balance", "action_repeat": 2},
        {"sequence_length": 4, "value_estimator": "retrace", "num_envs": 2, "buffer_size": 40},
        {"sequence_length": 4, "burn_in": 1, "recurrent": "lstm", "hidden_observation": [2]},
    ],
    ids=["n-step", "two environments", "periodic targets", "dm_control", "sequences", "recurrent"],
)
def test_runs_of_other_settings_continue_bitwise_too(tmp_path, settings):
    settings = {**settings, "eval_every": 100}
    whole = run(**settings, total_timesteps=100)[1]
    run(**settings, run_dir=str(tmp_path))
    metrics = run(**settings, run_dir=str(tmp_path), total_timesteps=100)[1]
    assert metrics["state_sha256"] == whole["state_sha256"]
    assert metrics["mean_reward"] == whole["mean_reward"]


def test_ctrl_c_ends_a_training_at_a_clean_point_with_everything_saved(tmp_path):
    trainer = MPOTrainer.from_config(small_config(run_dir=str(tmp_path), total_timesteps=1000))
    count = trainer._count

    def interrupt(*args):
        if trainer.collected_frames == 50:
            os.kill(os.getpid(), signal.SIGINT)
        count(*args)

    trainer._post_steps_ops.append((interrupt, {}))
    metrics = trainer.train()
    assert metrics["env_steps"] in (50, 60)  # asked for in step 50, heard after it or the next
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    again = MPOTrainer.from_config(small_config(run_dir=str(tmp_path), total_timesteps=1000))
    assert again.collected_frames == metrics["env_steps"]
    assert bitwise_equal(parameters(trainer), parameters(again))


def test_closing_ends_the_environments_and_leaves_the_policy():
    trainer, _ = run()
    trainer.close()
    assert trainer.collector.closed
    assert trainer.policy(torch.zeros(3)).shape == (1,)


def test_a_closed_trainer_can_save_what_it_learned_and_no_more(tmp_path):
    trainer, _ = run()
    trainer.close()
    path = trainer.save(tmp_path / "learner.zip", learner_only=True)
    assert bitwise_equal(parameters(trainer), parameters(MPOTrainer.load(path)))
    with pytest.raises(RuntimeError, match="was closed, its environments are gone; with learner_"):
        trainer.save(tmp_path / "everything.zip")
    with pytest.raises(RuntimeError, match="was closed, its environments are gone; MPOTrainer.l"):
        trainer.train(total_timesteps=80)


def test_training_to_a_step_long_past_only_evaluates():
    trainer, _ = run()
    before = parameters(trainer)
    assert trainer.train(total_timesteps=50)["env_steps"] == 60
    assert bitwise_equal(before, parameters(trainer))


def test_too_few_steps_are_refused():
    trainer = MPOTrainer.from_config(small_config())
    with pytest.raises(SettingError, match="total_timesteps must be >= learning_starts"):
        trainer.train(total_timesteps=10)


def test_unknown_settings_are_refused():
    with pytest.raises(SettingError, match="'epsilom' is not a setting; the nearest .* 'epsilon'"):
        MPOTrainer.from_env("Pendulum-v1", epsilom=0.1)


def test_what_others_draw_meanwhile_changes_nothing(tmp_path):
    alone, _ = run()
    first, second = (MPOTrainer.from_config(small_config()) for _ in range(2))
    torch.rand(3)
    first.train(total_timesteps=50)
    second.train()
    first.save(tmp_path / "first.zip")
    first.train(total_timesteps=60)
    third = MPOTrainer.load(tmp_path / "first.zip")
    np.random.rand()
    third.train(total_timesteps=60)
    for trainer in (first, second, third):
        assert bitwise_equal(parameters(trainer), parameters(alone))


def test_two_trainers_count_apart():
    first, _ = run()
    MPOTrainer.from_config(small_config())
    assert first.collected_frames == 60


def test_without_run_dir_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run()
    assert list(tmp_path.iterdir()) == []


def test_run_dir_receives_curve_checkpoint_and_metrics(tmp_path):
    trainer, metrics = run(run_dir=str(tmp_path))
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert read_config(tmp_path / "checkpoint.zip") == trainer.config
    rows = list(csv.DictReader((tmp_path / "progress.csv").open()))
    assert [int(row["env_steps"]) for row in rows] == [30, 60]
    assert rows[0]["loss_actor"] == ""  # no update yet
    assert float(rows[1]["eval_return_mean"]) == metrics["eval_return_mean"]


class Broken(gymnasium.Wrapper):
    """Pendulum whose step 45 brings a number that is none."""

    key = "reward"

    def __init__(self, env):
        super().__init__(env)
        self.steps = 0

    def step(self, action):
        observation, reward, *rest = super().step(action)
        self.steps += 1
        if self.steps == 45:
            if self.key == "reward":
                reward = float("nan")
            else:
                observation = np.full_like(observation, np.inf)
        return observation, reward, *rest


@pytest.fixture(params=["reward", "observation"])
def broken_env(request):
    kind = type("Broken", (Broken,), {"key": request.param})
    gymnasium.register("mpo/Broken-v0", lambda **_: kind(gymnasium.make("Pendulum-v1")))
    yield request.param
    del gymnasium.registry["mpo/Broken-v0"]


def test_a_bad_number_stops_with_step_key_and_the_last_good_checkpoint(broken_env, tmp_path):
    trainer = MPOTrainer.from_config(
        small_config(env="mpo/Broken-v0", run_dir=str(tmp_path), learning_starts=20)
    )
    with pytest.raises(NonFiniteError) as caught:
        trainer.train()
    sentence = str(caught.value)
    assert "environment step 45 " in sentence
    assert repr(("next", broken_env)) in sentence
    assert sentence.endswith(f"The last good state is in {tmp_path / 'checkpoint.zip'}.")
    loaded = MPOTrainer.load(tmp_path / "checkpoint.zip")
    assert (loaded.collected_frames, loaded.updates) == (40, 30)
    assert bitwise_equal(parameters(trainer), parameters(loaded))


def test_a_bad_number_leaves_the_state_of_the_last_good_step(broken_env, tmp_path):
    settings = {"env": "mpo/Broken-v0", "run_dir": str(tmp_path), "checkpoint_every": 20}
    with pytest.raises(NonFiniteError):
        run(**settings, learning_starts=20)
    assert (
        MPOTrainer.from_config(small_config(**settings, learning_starts=20)).collected_frames == 40
    )


def test_a_poisoned_learner_does_not_overwrite_the_checkpoint(tmp_path):
    trainer, _ = run(run_dir=str(tmp_path))
    good = (tmp_path / "checkpoint.zip").read_bytes()
    next(iter(trainer.loss_module.parameters())).data.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match=r"step 61 .* 'action'. The last good state is in"):
        trainer.train(total_timesteps=100)
    assert (tmp_path / "checkpoint.zip").read_bytes() == good


def test_kls_are_measured_against_their_bounds_after_training():
    trainer, metrics = run(total_timesteps=200)
    assert metrics["kl_mean"] <= 1.5 * trainer.config.epsilon_mean
    assert metrics["kl_e_step"] <= 1.5 * trainer.config.epsilon


if __name__ == "__main__":
    pytest.main([__file__])
