"""Replay of sequences: consecutive steps of one episode in one environment."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor
from torchrl.data import LazyTensorStorage, SliceSampler, TensorDictReplayBuffer

from mpo_torchrl.trainer.config import MPOConfig

TRAJECTORY: NestedKey = ("collector", "traj_ids")
"""Where a collector numbers episodes; no number is used twice."""


def make_sequence_buffer(config: MPOConfig) -> SequenceReplayBuffer:
    """Steps in memory, time first, sampled as ``batch_size / sequence_length`` sequences."""
    ndim = 1 if config.num_envs == 1 else 2
    return SequenceReplayBuffer(
        storage=LazyTensorStorage(config.buffer_size, device=config.device, ndim=ndim),
        sampler=SequenceSampler(config.sequence_length),
        batch_size=config.batch_size,
    )


class SequenceSampler(SliceSampler):
    """TorchRL's :class:`~torchrl.data.SliceSampler` with all sequences of an episode as likely.

    A sequence never leaves its episode, and an episode that is shorter than a sequence is filled
    up with repetitions of its last step, which ``("collector", "mask")`` marks as ``False``.

    TorchRL first draws an episode and then a place in it: steps of short episodes, and of the
    beginning of the one that is just being played, would come up far more often than others.
    Here an episode is drawn in proportion to the sequences it has.

    Args:
        length (int): steps of a sequence.
    """

    def __init__(self, length: int) -> None:
        super().__init__(
            slice_len=length,
            traj_key=TRAJECTORY,
            cache_values=True,  # until the next steps come in
            strict_length=False,
            pad_output=True,
            init_key=None,  # where an episode begins is stored, if it matters
        )

    def _sample_slices(
        self,
        lengths: Tensor,
        start_idx: Tensor,
        stop_idx: Tensor,
        seq_length: int,
        num_slices: int,
        storage_length: int,
        traj_idx: Tensor | None = None,
        *,
        storage: Any,
    ) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        if traj_idx is None:
            ends = (lengths - seq_length + 1).clamp(min=1).cumsum(0)
            place = torch.rand(num_slices, device=ends.device, dtype=torch.float64) * ends[-1]
            traj_idx = torch.searchsorted(ends, place.floor().to(ends.dtype), right=True)
        return super()._sample_slices(
            lengths,
            start_idx,
            stop_idx,
            seq_length,
            num_slices,
            storage_length,
            traj_idx,
            storage=storage,
        )


class SequenceReplayBuffer(TensorDictReplayBuffer):
    """A replay buffer whose samples are sequences ``[B, T]``, time last.

    ``("next", "done")`` is set at the end of each sequence: nothing is known of what follows.

    Args:
        **kwargs: as for :class:`~torchrl.data.TensorDictReplayBuffer`; the sampler is a
            :class:`SequenceSampler`.
    """

    def _set_index_in_td(self, tensordict: TensorDictBase, index: Any) -> None:
        """Nothing: the place of a step in the storage is for priorities, which are not kept here.

        TorchRL 0.14.1 also fails on a batch of one step in each of several environments, whose
        places it brings into the wrong shape.
        """

    def sample(self, batch_size: int | None = None, **kwargs: Any) -> TensorDictBase:
        """``batch_size`` steps, as sequences."""
        steps = super().sample(batch_size, **kwargs)
        return steps.reshape(-1, self.sampler.slice_len)
