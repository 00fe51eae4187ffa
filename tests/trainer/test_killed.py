"""A run killed at any moment and started again ends as one that was never interrupted."""

from __future__ import annotations

import dataclasses
import json
import random
import signal
import time

import pytest

from tests.trainer import killed
from tests.trainer.small import small_config

RUN = {
    "total_timesteps": 240,
    "checkpoint_every": 20,
    "buffer_size": 150,
    "eval_every": 80,
    "n_action_samples": 4,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    config = small_config(**RUN, run_dir=str(folder))
    assert killed.run(config) == 0, killed.last_words(config)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(whole):
    """What that run ended with."""
    return killed.outcome(whole)


def test_twenty_kills_at_random_moments_leave_no_trace(whole, uninterrupted, tmp_path):
    config = small_config(**RUN, run_dir=str(tmp_path))
    moments = random.Random(0)
    # While it starts, or some way into what is left: as far on a fast machine as on a slow one.
    latest = 0.3 * json.loads((whole / "metrics.json").read_text())["wall_seconds"]
    exits = []
    for _ in range(20):
        process = killed.start(config)
        time.sleep(moments.uniform(0.0, latest))
        process.kill()
        process.join()
        exits.append(process.exitcode)
    assert exits.count(-signal.SIGKILL) > 10  # the last ones may come too late
    assert killed.run(config) == 0, killed.last_words(config)
    assert killed.outcome(tmp_path) == uninterrupted


# In a state: each of the first four files half-written, the replay buffer, before and after the
# state appears, while it links, before and after an old state goes; in checkpoint.zip.
DEATHS = [
    *[{"die_in": "torch.save", "nth": nth} for nth in (1, 2, 3, 4, 7, 10, 15, 34, 36)],
    *[{"die_in": "os.replace", "nth": nth} for nth in (1, 2, 3, 4)],
    *[{"die_in": "os.replace", "nth": nth, "after": True} for nth in (1, 2, 3, 4)],
    {"die_in": "os.link", "nth": 2},
]


def test_kills_in_the_middle_of_writing_leave_no_trace(uninterrupted, tmp_path):
    config = small_config(**RUN, run_dir=str(tmp_path))
    for death in DEATHS:
        assert killed.run(config, **death) == -signal.SIGKILL, death
    assert killed.run(config) == 0, killed.last_words(config)
    assert killed.outcome(tmp_path) == uninterrupted


def test_a_disk_that_was_full_leaves_no_trace(uninterrupted, tmp_path):
    config = small_config(**RUN, run_dir=str(tmp_path))
    begun = dataclasses.replace(config, total_timesteps=80)
    assert killed.run(begun) == 0, killed.last_words(begun)
    assert killed.run(config, largest_file=10_000) == 1
    assert killed.run(config) == 0, killed.last_words(config)
    assert killed.outcome(tmp_path) == uninterrupted


if __name__ == "__main__":
    pytest.main([__file__])
