"""A folder of a run belongs to one process at a time."""

from __future__ import annotations

import time

import pytest

from mpo_torchrl.trainer import MPOTrainer, SettingError
from tests.trainer import killed
from tests.trainer.small import small_config


@pytest.fixture
def at_work(tmp_path):
    """A process that trains in ``tmp_path`` for longer than a test takes."""
    process = killed.start(small_config(run_dir=str(tmp_path), total_timesteps=10**6))
    deadline = time.monotonic() + 60
    while not (tmp_path / "progress.csv").exists():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.05)
    yield process
    process.kill()
    process.join()


def test_a_second_process_is_refused(at_work, tmp_path):
    with pytest.raises(SettingError, match="is in use by another process: wait for it to end"):
        MPOTrainer.from_config(small_config(run_dir=str(tmp_path), total_timesteps=10**6))


def test_a_killed_process_leaves_the_folder_free(at_work, tmp_path):
    at_work.kill()
    at_work.join()
    config = small_config(run_dir=str(tmp_path), resume="never")
    assert MPOTrainer.from_config(config).train()["env_steps"] == 60


def test_the_same_process_may_come_twice(tmp_path):
    config = small_config(run_dir=str(tmp_path))
    first = MPOTrainer.from_config(config)
    assert MPOTrainer.from_config(config).train()["env_steps"] == 60
    first.close()


if __name__ == "__main__":
    pytest.main([__file__])
