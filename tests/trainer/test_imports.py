from __future__ import annotations

import subprocess
import sys

import pytest

BLOCKED = [
    *("hydra", "omegaconf", "tqdm", "matplotlib", "mujoco", "yaml"),
    *("tensorboard", "wandb", "mlflow", "imageio_ffmpeg", "pygame"),
    "ray",  # TorchRL imports it where it is installed, and it wants yaml
]


def test_the_trainer_needs_nothing_of_the_recipes_extra():
    code = f"import sys; sys.modules.update(dict.fromkeys({BLOCKED})); import mpo_torchrl.trainer"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


if __name__ == "__main__":
    pytest.main([__file__])
