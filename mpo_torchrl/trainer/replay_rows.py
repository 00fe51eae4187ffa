"""A replay buffer on disk, written as it grows.

TorchRL's ``ReplayBuffer.dumps`` writes the whole storage each time, and its ``loads`` unpickles
what the folder asks it to. Here rows go into files of fixed length. A full file never changes, so
the next checkpoint links it instead of writing it again: a checkpoint of a million transitions
costs as much as the rows that are new.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.checkpoint import CheckpointAdapter
from torchrl.data import ReplayBuffer

from mpo_torchrl.trainer.adapter import load_tensors

STEPS_PER_FILE = 10_000


class ReplayRowsAdapter(CheckpointAdapter):
    """Keeps a replay buffer as files ``rows-<first>-<end>.pt``, and everything else beside them.

    A row is what the buffer holds at one place: a transition, or a piece of one environment's
    trajectory where the storage has two dimensions. Rows count from the very first that was
    written; in a buffer with ``M`` places row ``i`` is at ``i % M``.

    Args:
        previous (Path, optional): folder of the same buffer in an earlier checkpoint, whose full
            files are linked.
    """

    adapter_id = "mpo_torchrl.replay_rows"
    state_filename = "state.pt"

    def __init__(self, previous: Path | None = None) -> None:
        self.previous = previous

    def save(
        self,
        component: ReplayBuffer,
        path: Path,
        *,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        """Write the rows that are new into the folder ``path``, link the rest."""
        path.mkdir(parents=True)
        state = {
            "writer": component.writer.state_dict(),
            "sampler": component.sampler.state_dict(),
            "transform": component.transform.state_dict(),
            "files": [],
        }
        if len(component):
            shape = component.storage.shape  # [rows, ...]
            end = component.write_count
            start = end - shape[0]
            per_file = max(1, STEPS_PER_FILE // shape[1:].numel())
            for first in range(start - start % per_file, end, per_file):
                last = min(first + per_file, end)
                name = f"rows-{first:012d}-{last:012d}.pt"
                state["files"].append(name)
                if last - first < per_file or not self._link(name, path):
                    rows = torch.arange(max(first, start), last)
                    save_rows(path / name, component.storage.get(rows % shape[0]))
        torch.save(state, path / self.state_filename)

    def _link(self, name: str, path: Path) -> bool:
        """Whether an earlier checkpoint has the file; if so it is here, too."""
        if self.previous is None or not (self.previous / name).is_file():
            return False
        try:
            os.link(self.previous / name, path / name)
        except OSError:  # a file system without hard links
            shutil.copyfile(self.previous / name, path / name)
        return True

    def load(
        self,
        component: ReplayBuffer,
        path: Path,
        *,
        map_location: Any,
        tensor_load_kwargs: Mapping[str, Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        """Fill the buffer from the folder ``path``; code in it is refused."""
        state = load_tensors(path / self.state_filename)
        component.empty()
        for name in state["files"]:
            data = load_rows(path / Path(name).name)  # no way out of the folder
            last = int(name.removesuffix(".pt").split("-")[2])
            rows = torch.arange(last - len(data), last)
            places = component.storage._max_size_along_dim0(batched_data=data)
            component.storage.set(rows % places, data.to(component.storage.device))
        component.writer.load_state_dict(state["writer"])
        component.sampler.load_state_dict(state["sampler"])
        component.transform.load_state_dict(state["transform"])


def save_rows(path: Path, data: TensorDictBase) -> None:
    """Write rows ``[R, ...]`` as plain tensors."""
    torch.save({"shape": list(data.shape), "data": data.cpu().to_dict()}, path)


def load_rows(path: Path) -> TensorDict:
    """Read what :func:`save_rows` wrote."""
    content = load_tensors(path)
    return TensorDict(content["data"], batch_size=content["shape"])
