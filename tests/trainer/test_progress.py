from __future__ import annotations

import pytest
import torch

from mpo_torchrl.trainer import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on when told so."""
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


def test_the_clock_goes_on_where_the_last_session_stopped(clock):
    first, second = Progress(), Progress()
    first.start_clock()
    clock[0] += 2
    state = first.state_dict()
    clock[0] += 50  # between two sessions
    second.start_clock()
    clock[0] += 7  # before the state is loaded
    second.load_state_dict(state)
    clock[0] += 3
    assert (first.wall_seconds, second.wall_seconds) == (62, 5)


def test_a_stopped_clock_does_not_count(clock):
    progress = Progress()
    progress.start_clock()
    clock[0] += 2
    progress.stop_clock()
    clock[0] += 50
    assert progress.wall_seconds == 2


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
