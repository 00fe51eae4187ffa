from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, ReplayBuffer

from mpo_torchrl.trainer import NStepReturns, replay_rows
from mpo_torchrl.trainer.replay_rows import ReplayRowsAdapter

OPTIONS = {"args": (), "kwargs": {}}


@pytest.fixture(autouse=True)
def short_files(monkeypatch):
    monkeypatch.setattr(replay_rows, "STEPS_PER_FILE", 10)


def make_buffer(places=35, ndim=1, transform=None):
    storage = LazyTensorStorage(places, ndim=ndim)
    return ReplayBuffer(storage=storage, batch_size=8, transform=transform)


def steps(start, number, *batch):
    numbers = torch.arange(start, start + number, dtype=torch.float32)
    numbers = numbers.expand(*batch, number).unsqueeze(-1)  # [*batch, number, 1]
    done = torch.zeros_like(numbers, dtype=torch.bool)
    data = {
        "observation": numbers,
        "action": -numbers,
        "next": {"observation": numbers + 1, "reward": numbers, "done": done, "terminated": done},
    }
    return TensorDict(data, batch_size=numbers.shape[:-1])


def save(buffer, path, previous=None):
    ReplayRowsAdapter(previous).save(buffer, path, **OPTIONS)


def load(path, buffer):
    ReplayRowsAdapter().load(buffer, path, map_location="cpu", tensor_load_kwargs={}, **OPTIONS)
    return buffer


def same_rows(one, other):
    return len(one) == len(other) and bool((one[:] == other[:]).all())


# Empty, one row, a full file, past it, up to the brim, once around, three times around.
@pytest.mark.parametrize("written", [0, 1, 10, 27, 35, 36, 40, 112])
def test_a_buffer_comes_back_row_by_row(written, tmp_path):
    buffer = make_buffer()
    for step in range(written):
        buffer.extend(steps(step, 1))
    save(buffer, tmp_path / "rows")
    loaded = load(tmp_path / "rows", make_buffer())
    assert len(loaded) == len(buffer)
    assert not written or same_rows(buffer, loaded)


@pytest.mark.parametrize("written", [27, 112])
def test_a_loaded_buffer_is_written_on_at_the_same_place(written, tmp_path):
    buffer = make_buffer()
    buffer.extend(steps(0, written)) if written < 35 else [
        buffer.extend(steps(step, 1)) for step in range(written)
    ]
    save(buffer, tmp_path / "rows")
    loaded = load(tmp_path / "rows", make_buffer())
    for one in (buffer, loaded):
        one.extend(steps(1000, 20))
    assert same_rows(buffer, loaded)
    assert buffer.write_count == loaded.write_count


def test_a_loaded_buffer_draws_the_same_samples(tmp_path):
    buffer = make_buffer()
    buffer.extend(steps(0, 30))
    save(buffer, tmp_path / "rows")
    loaded = load(tmp_path / "rows", make_buffer())
    torch.manual_seed(0)
    expected = buffer.sample()
    torch.manual_seed(0)
    assert (expected == loaded.sample()).all()


def test_full_files_are_linked_not_written_again(tmp_path):
    buffer = make_buffer()
    buffer.extend(steps(0, 25))
    save(buffer, tmp_path / "first")
    buffer.extend(steps(25, 7))
    save(buffer, tmp_path / "second", previous=tmp_path / "first")
    linked = [
        (tmp_path / "second" / path.name).exists()
        and (tmp_path / "second" / path.name).samefile(path)
        for path in sorted((tmp_path / "first").glob("rows-*"))
    ]
    assert linked == [True, True, False]  # rows 0-10, 10-20, 20-25
    assert same_rows(buffer, load(tmp_path / "second", make_buffer()))


def test_files_that_cannot_be_linked_are_copied(tmp_path, monkeypatch):
    def no_links(source, destination):
        raise OSError("not on this file system")

    monkeypatch.setattr("os.link", no_links)
    buffer = make_buffer()
    buffer.extend(steps(0, 25))
    save(buffer, tmp_path / "first")
    save(buffer, tmp_path / "second", previous=tmp_path / "first")
    assert same_rows(buffer, load(tmp_path / "second", make_buffer()))


def test_files_whose_rows_are_all_overwritten_are_not_kept(tmp_path):
    buffer = make_buffer()
    for step in range(57):
        buffer.extend(steps(step, 1))
    save(buffer, tmp_path / "rows")  # rows 22 to 57 are there
    names = [path.name for path in sorted((tmp_path / "rows").glob("rows-*"))]
    assert [name.split("-")[1].lstrip("0") for name in names] == ["20", "30", "40", "50"]


def test_the_first_checkpoint_after_a_load_links_too(tmp_path):
    buffer = make_buffer()
    for step in range(57):
        buffer.extend(steps(step, 1))
    save(buffer, tmp_path / "first")
    loaded = load(tmp_path / "first", make_buffer())
    for one in (buffer, loaded):
        one.extend(steps(57, 6))
    save(loaded, tmp_path / "second", previous=tmp_path / "first")
    assert same_rows(buffer, load(tmp_path / "second", make_buffer()))


def test_environments_in_a_dimension_of_their_own_come_back(tmp_path):
    buffer = make_buffer(places=36, ndim=2)
    for step in range(0, 27, 3):
        buffer.extend(steps(step, 3, 2))  # two environments, three steps each
    save(buffer, tmp_path / "rows")
    loaded = load(tmp_path / "rows", make_buffer(places=36, ndim=2))
    assert (buffer.storage[:] == loaded.storage[:]).all()
    for one in (buffer, loaded):
        one.extend(steps(100, 3, 2))
    assert (buffer.storage[:] == loaded.storage[:]).all()


def test_steps_that_wait_for_their_n_step_return_come_back(tmp_path):
    buffer = make_buffer(transform=NStepReturns(3, 0.9))
    buffer.extend(steps(0, 10))
    save(buffer, tmp_path / "rows")
    loaded = load(tmp_path / "rows", make_buffer(transform=NStepReturns(3, 0.9)))
    for one in (buffer, loaded):
        one.extend(steps(10, 10))
    assert same_rows(buffer, loaded)


if __name__ == "__main__":
    pytest.main([__file__])
