"""A run killed at any moment and started again ends as one that was never interrupted."""

from __future__ import annotations

import random
import time

import pytest

from tests.trainer import killed
from tests.trainer.small import small_config

RUN = {"total_timesteps": 400, "checkpoint_every": 20, "buffer_size": 150, "eval_every": 100}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert killed.run(small_config(**RUN, run_dir=str(folder))) == 0
    return killed.outcome(folder)


def test_twenty_kills_at_random_moments_leave_no_trace(uninterrupted, tmp_path):
    config = small_config(**RUN, run_dir=str(tmp_path))
    moments = random.Random(0)
    for _ in range(20):
        process = killed.start(config)
        time.sleep(moments.uniform(0.2, 0.8))
        process.kill()
        process.join()

    assert killed.run(config) == 0
    assert killed.outcome(tmp_path) == uninterrupted


if __name__ == "__main__":
    pytest.main([__file__])
