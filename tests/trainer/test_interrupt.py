from __future__ import annotations

import os
import signal

import pytest

from mpo_torchrl.trainer import stop_request


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted(signum):
    with stop_request() as stop:
        assert not stop.received
        os.kill(os.getpid(), signum)
        assert stop.received


def test_a_second_signal_interrupts_at_once():
    with pytest.raises(KeyboardInterrupt), stop_request():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_the_previous_handler_comes_back():
    before = signal.getsignal(signal.SIGINT)
    with stop_request():
        pass
    assert signal.getsignal(signal.SIGINT) is before


if __name__ == "__main__":
    pytest.main([__file__])
