"""Golden cases: inputs, settings, outputs and gradients of DeepMind's own JAX code.

``acme_gaussian.npz`` is google-deepmind/acme ``acme/jax/losses/mpo.py``, ``rlax_mpo.npz`` is
google-deepmind/rlax ``mpo_loss``, ``kl.npz`` is TensorFlow Probability as Acme uses it, each
evaluated in float64 on a CPU. Their axes are [N, B, D]; ours are [B, N, D].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

FOLDER = Path(__file__).parent


class Case:
    """One case of a reference file."""

    def __init__(self, file: str, index: int) -> None:
        with np.load(FOLDER / f"{file}.npz", allow_pickle=False) as archive:
            prefix = f"case{index}/"
            self.entries = {
                key.removeprefix(prefix): archive[key]
                for key in archive.files
                if key.startswith(prefix)
            }

    def __contains__(self, key: str) -> bool:
        return key in self.entries

    def __getitem__(self, key: str) -> Tensor:
        return torch.as_tensor(self.entries[key])

    def config(self, key: str):
        return self.entries[f"config/{key}"].item()

    def samples_last(self, key: str) -> Tensor:
        """An entry with samples first, [N, *B, ...], as [*B, N] or [*B, N, D]."""
        value = self[key]
        batch_dims = self["in/target_mean"].ndim - 1 if "in/target_mean" in self else value.ndim - 1
        return value.movedim(0, batch_dims).contiguous()

    def assert_close(self, actual: Tensor, key: str) -> None:
        """Equal to 1e-9 relative, beside the rounding noise the reference itself has."""
        expected = self[key]
        actual = actual.detach().reshape(expected.shape)
        noise = float(np.max(self.entries.get(f"noise/{key}", 0.0)))
        tolerance = 1e-12 + 1e-9 * expected.abs() + 100 * noise
        worst = ((actual - expected).abs() - tolerance).max()
        assert bool(worst <= 0), f"{key}: {actual} is not {expected}"


def cases(file: str):
    """Parametrises a test over every case of a file, named by the reference's own note."""
    with np.load(FOLDER / f"{file}.npz", allow_pickle=False) as archive:
        notes = [str(archive[f"case{i}/note"]) for i in range(int(archive["meta/num_cases"]))]
    return pytest.mark.parametrize(
        "case", [pytest.param(Case(file, i), id=note) for i, note in enumerate(notes)]
    )
