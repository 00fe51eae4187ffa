"""What the settings of the environment and the targets add to a run comes back with it."""

from __future__ import annotations

import pytest

from mpo_torchrl.trainer import MPOTrainer
from tests.trainer.small import small_config

SETTINGS = {
    "n_step": {"n_step": 4},
    "environments": {"num_envs": 3, "n_step": 2},
    "normalizer": {"normalize_observation": True, "reward_scale": 0.1},
    "periodic_targets": {"target_period": 7},
    "dm_control": {"env": "dm_control/cartpole-balance", "action_repeat": 20},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_a_continued_run_ends_as_an_uninterrupted_one(settings, tmp_path):
    settings = {"eval_every": 60, "checkpoint_every": 30, "hidden": 8, **settings}

    def train(folder: str, total_timesteps: int) -> str:
        config = small_config(
            run_dir=str(tmp_path / folder), total_timesteps=total_timesteps, **settings
        )
        trainer = MPOTrainer.from_config(config)
        digest = trainer.train()["state_sha256"]
        trainer.close()
        return digest

    whole = train("whole", 120)
    assert train("parts", 60) != whole
    assert train("parts", 120) == whole


if __name__ == "__main__":
    pytest.main([__file__])
