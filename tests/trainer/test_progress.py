from __future__ import annotations

import time

import pytest
import torch

from mpo_torchrl.trainer import Progress


def test_the_clock_goes_on_where_the_last_session_stopped():
    first, second = Progress(), Progress()
    first.start_clock()
    time.sleep(0.02)
    state = first.state_dict()
    time.sleep(0.05)  # between two sessions
    second.start_clock()
    second.load_state_dict(state)
    assert 0.02 <= state["seconds"] <= second.wall_seconds < state["seconds"] + 0.05


def test_a_stopped_clock_does_not_count():
    progress = Progress()
    progress.start_clock()
    progress.stop_clock()
    before = progress.wall_seconds
    time.sleep(0.01)
    assert progress.wall_seconds == before


def test_the_best_evaluation_is_the_best_of_all_sessions():
    first, second = Progress(), Progress()
    assert first.note(torch.tensor([-10.0]))
    second.load_state_dict(first.state_dict())
    assert not second.note(torch.tensor([-11.0]))
    assert second.note(torch.tensor([-9.0]))


def test_an_evaluation_without_a_number_is_never_the_best():
    assert not Progress().note(torch.tensor([float("nan")]))


if __name__ == "__main__":
    pytest.main([__file__])
