from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def targets_need_no_updater() -> Iterator[None]:
    with warnings.catch_warnings():
        # Good advice to a training loop; most tests move no target.
        warnings.filterwarnings("ignore", message="No target network updater")
        yield
