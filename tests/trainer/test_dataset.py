"""Minari data sets: what is read is what was played, and what is wrong is said."""

from __future__ import annotations

import gymnasium
import h5py
import minari
import numpy as np
import pytest
import torch
from torchrl.data.datasets import MinariExperienceReplay

from mpo_torchrl.trainer import OfflineConfig, SettingError, make_env
from mpo_torchrl.trainer.dataset import load_dataset, record_dataset
from tests.trainer.data_sets import record_random

NAME = "pendulum/random-v0"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def load(name: str = NAME, env_name: str = "Pendulum-v1", **kwargs):
    return load_dataset(name, env_name, make_env(env_name, **kwargs))


def damage(folder, change) -> None:
    with h5py.File(folder / NAME / "data" / "main_data.hdf5", "a") as file:
        change(file)


def test_the_transitions_are_those_that_were_played() -> None:
    returns = record_random(NAME)
    dataset = load()
    assert dataset.transitions.shape == (400,)
    torch.testing.assert_close(dataset.returns, torch.tensor(returns, dtype=torch.float32))
    env = gymnasium.make("Pendulum-v1")
    observation, _ = env.reset(seed=1)  # of the second episode
    for step in dataset.transitions[200:203]:
        np.testing.assert_array_equal(step["observation"], observation)
        observation, reward, *_ = env.step(step["action"].numpy())
        np.testing.assert_array_equal(step["next", "observation"], observation)
        assert step["next", "reward"].item() == pytest.approx(reward, rel=1e-6)
    done = dataset.transitions["next", "done"].squeeze(-1)
    assert done.nonzero().flatten().tolist() == [199, 399]
    assert not dataset.transitions["next", "terminated"].any()


def test_real_numbers_are_float32() -> None:
    record_random(NAME)
    kinds = {v.dtype for v in load().transitions.values(True, True)}
    assert kinds == {torch.float32, torch.bool}


def test_actions_are_kept_as_the_environment_took_them() -> None:
    env = gymnasium.make("Pendulum-v1", max_episode_steps=3)
    record_dataset(NAME, env, lambda _: np.array([7.0], np.float32), range(2))
    assert (load().transitions["action"] == 2).all()


def test_a_data_set_that_is_missing_is_named_with_those_there() -> None:
    record_random("pendulum/other-v0")
    with pytest.raises(SettingError, match=r"is not there as .*found: pendulum/other-v0\); record"):
        load()


@pytest.mark.parametrize("name", ["medium", "no version/at all", "pendulum/medium"])
def test_an_id_without_a_version_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match="dataset must be an id such as pendulum/medium-v0"):
        load(name)


def test_a_data_set_of_another_environment_is_refused() -> None:
    record_random(NAME)
    with pytest.raises(SettingError, match="is of the environment 'Pendulum-v1', not of 'Mountain"):
        load(env_name="MountainCarContinuous-v0")


def test_spaces_are_compared_where_the_environment_is_not_told(folder) -> None:
    record_random(NAME)
    metadata = folder / NAME / "data" / "metadata.json"
    dataset = minari.load_dataset(NAME)
    assert dataset.spec.env_spec is not None
    text = metadata.read_text().replace('"env_spec"', '"once_env_spec"')
    metadata.write_text(text)
    with pytest.raises(SettingError, match=r"has observations of shape \(3,\), the environment"):
        load(env_name="MountainCarContinuous-v0")


def test_an_empty_data_set_is_refused() -> None:
    record_random(NAME, episodes=0)
    with pytest.raises(SettingError, match="is empty; record one"):
        load()


def test_one_episode_is_enough() -> None:
    record_random(NAME, episodes=1)
    assert load().transitions.shape == (200,)


def test_discrete_actions_are_refused() -> None:
    record_random("cartpole/random-v0", "CartPole-v1")
    with pytest.raises(SettingError, match=r"must have continuous actions.*got Discrete\(2\)"):
        load("cartpole/random-v0", "CartPole-v1", discrete=True)


@pytest.mark.parametrize("flag", ["terminations", "truncations"])
def test_a_data_set_without_the_flags_of_its_episodes_is_refused(flag: str, folder) -> None:
    record_random(NAME)
    damage(folder, lambda file: file.__delitem__(f"episode_1/{flag}"))
    with pytest.raises(SettingError, match=f"lacks an entry.*{flag}"):
        load()


def test_an_episode_without_an_end_is_refused(folder) -> None:
    record_random(NAME)

    def forget(file):
        file["episode_1/truncations"][-1] = False

    damage(folder, forget)
    with pytest.raises(SettingError, match="neither terminates nor is truncated, number 1;"):
        load()


def test_a_file_that_is_damaged_is_named(folder) -> None:
    record_random(NAME)
    (folder / NAME / "data" / "metadata.json").write_text("{")
    with pytest.raises(SettingError, match="cannot be read"):
        load()


def test_a_data_set_is_never_overwritten() -> None:
    record_random(NAME)
    with pytest.raises(SettingError, match="there is a data set 'pendulum/random-v0' in"):
        record_random(NAME)


class Endless(gymnasium.Env):
    """No end, unless it is registered with one."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, seed=None, options=None):
        return np.zeros(3, np.float32), {}

    def step(self, action):
        return np.zeros(3, np.float32), 0.0, False, False, {}


def test_an_environment_without_an_end_is_not_recorded(monkeypatch, folder) -> None:
    monkeypatch.setattr("mpo_torchrl.trainer.dataset.MAX_EPISODE_STEPS", 20)
    with pytest.raises(SettingError, match="no end in 20 steps: register .* max_episode_steps"):
        record_dataset(NAME, Endless(), lambda _: np.zeros(1, np.float32), [0])
    assert not list(folder.iterdir())


def test_an_environment_that_cannot_be_written_down_is_refused_before_it_is_played(folder) -> None:
    gymnasium.register("mpo/ByClass-v0", Endless, max_episode_steps=5)
    with pytest.raises(SettingError, match="registered with its class.* entry_point='module:Cla"):
        record_dataset(NAME, gymnasium.make("mpo/ByClass-v0"), None, [0])
    assert not list(folder.iterdir())
    del gymnasium.registry["mpo/ByClass-v0"]


def test_a_module_in_the_name_of_the_environment_is_not_part_of_its_id() -> None:
    record_random(NAME)
    assert load(env_name="gymnasium.envs.classic_control:Pendulum-v1").transitions.numel()


def test_torchrls_own_reader_hands_out_zeros(tmp_path) -> None:
    # When it does no longer, load_dataset can be it.
    record_random(NAME)
    replay = MinariExperienceReplay(
        NAME, 8, root=tmp_path / "copy", download=False, load_from_local_minari=True
    )
    assert load().transitions["next", "reward"].all()
    assert not replay[:]["next", "reward"].any()


def test_a_missing_package_is_named(monkeypatch) -> None:
    monkeypatch.setattr("mpo_torchrl.trainer.dataset.find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"pip install 'mpo_torchrl\[offline\]'"):
        load()


def test_a_run_without_a_data_set_is_refused() -> None:
    with pytest.raises(SettingError, match="dataset must be the id of a Minari data set"):
        OfflineConfig()


@pytest.mark.parametrize("name", OfflineConfig.UNUSED)
def test_settings_of_other_runs_are_refused(name: str) -> None:
    of_its_own = {
        "value_estimator": "retrace",
        "recurrent": "gru",
        "hidden_observation": [2],
        "epsilons": [0.1, 0.2],
        "objectives": ["speed", "energy"],
    }
    of_its_kind = {bool: True, int: 7, float: 2.0}
    kind = type(getattr(OfflineConfig(dataset=NAME), name))
    value = of_its_own[name] if name in of_its_own else of_its_kind[kind]
    with pytest.raises(SettingError, match=f"{name} is not used by a run on a data set"):
        OfflineConfig(dataset=NAME, **{name: value})


if __name__ == "__main__":
    pytest.main([__file__])
