from __future__ import annotations

import io
import json
import os
import pickle
import zipfile

import pytest
import torch
from torchrl.checkpoint import Checkpoint, CheckpointError

from mpo_torchrl.trainer import MPOTrainer, load_checkpoint, read_config, save_checkpoint
from tests.trainer.small import small_config


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture(scope="module")
def trainer():
    trainer = MPOTrainer.from_config(small_config())
    trainer.train()
    return trainer


@pytest.fixture
def saved(trainer, tmp_path):
    return trainer.save(tmp_path / "checkpoint.zip", learner_only=True)


def replace_member(path, ending, content):
    """Rewrite the archive with the content of one member changed; ``None`` removes it."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith(ending))
    with zipfile.ZipFile(path, "w") as archive:
        for member, old in members.items():
            if member != name:
                archive.writestr(member, old)
            elif content is not None:
                archive.writestr(member, content)


def equal_states(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(one[key], other[key]) for key in one if torch.is_tensor(one[key])
    )


def test_networks_targets_and_duals_come_back(trainer, saved):
    loaded = MPOTrainer.load(saved)
    assert equal_states(trainer.loss_module.state_dict(), loaded.loss_module.state_dict())


def test_the_optimizer_comes_back(trainer, saved):
    before, after = (t.optimizer.state_dict() for t in (trainer, MPOTrainer.load(saved)))
    assert before["param_groups"] == after["param_groups"]
    for index, state in before["state"].items():
        assert equal_states(state, after["state"][index])


def test_counters_and_settings_come_back(trainer, saved):
    loaded = MPOTrainer.load(saved)
    assert (loaded.collected_frames, loaded.updates) == (60, 30)
    assert loaded.config == trainer.config == read_config(saved)


def test_a_loaded_policy_acts_as_before(trainer, saved):
    observation = torch.randn(5, 3)
    assert torch.equal(trainer.policy(observation), MPOTrainer.load(saved).policy(observation))


def test_a_loaded_learner_goes_on_with_its_policy_and_updates_once_the_buffer_is_filled(
    trainer, tmp_path
):
    loaded = MPOTrainer.load(trainer.save(tmp_path / "learner.zip", learner_only=True))
    metrics = loaded.train(total_timesteps=120)
    assert metrics["env_steps"] == 120
    assert metrics["updates"] == 30 + 30  # 40 of the 60 steps fill the buffer
    assert loaded.collector.init_random_frames == 0


def test_a_learner_alone_is_a_small_file(trainer, saved, tmp_path):
    whole = trainer.save(tmp_path / "whole" / "trainer.zip")
    names = {name.split("/")[1] for name in zipfile.ZipFile(saved).namelist() if "/" in name}
    assert names == {"0000-loss", "0001-optimizer"}
    assert saved.stat().st_size < whole.stat().st_size


def test_saving_again_replaces_the_file_and_leaves_nothing_else(trainer, saved):
    trainer.save(saved)
    assert [path.name for path in saved.parent.iterdir()] == ["checkpoint.zip"]


def test_a_failing_save_leaves_the_old_checkpoint(trainer, saved, monkeypatch):
    before = saved.read_bytes()

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", full_disk)
    with pytest.raises(CheckpointError, match="checkpoint.zip' cannot be written: No space left"):
        trainer.save(saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["checkpoint.zip"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere.zip' does not exist"):
        MPOTrainer.load(tmp_path / "nowhere.zip")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_named(saved, kept):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(CheckpointError, match="is damaged or no checkpoint at all"):
        MPOTrainer.load(saved)


def test_a_version_of_zip_files_that_does_not_exist_is_damage(saved):
    content = bytearray(saved.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 6] = 235
    saved.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged or no checkpoint at all"):
        MPOTrainer.load(saved)


def test_flipped_bytes_are_noticed(saved):
    content = bytearray(saved.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    saved.write_bytes(content)
    with pytest.raises(CheckpointError, match="checkpoint.zip' (is damaged|cannot be loaded)"):
        MPOTrainer.load(saved)


def test_another_kind_of_file_is_named(tmp_path):
    for name, write in {
        "text": lambda path: path.write_text("hello"),
        "weights": lambda path: torch.save({"weight": torch.ones(1)}, path),
        "folder": lambda path: path.mkdir(),
    }.items():
        path = tmp_path / name
        write(path)
        with pytest.raises(CheckpointError, match=f"{name}' is damaged or no checkpoint at all"):
            MPOTrainer.load(path)


def test_a_checkpoint_of_another_library_is_named(tmp_path):
    path = Checkpoint(policy=torch.nn.Linear(1, 1)).save(tmp_path / "other.zip", format="archive")
    with pytest.raises(CheckpointError, match=r"other.zip' is not one of mpo_torchrl"):
        MPOTrainer.load(path)


def test_other_dimensions_are_named(saved):
    other = MPOTrainer.from_config(small_config(hidden=24))
    with pytest.raises(
        CheckpointError,
        match=r"is of other dimensions or another network: .* \[16, 3\] in the file, \[24, 3\]",
    ):
        load_checkpoint(saved, loss=other.loss_module)


def test_another_number_of_critics_is_named(saved):
    other = MPOTrainer.from_config(small_config(num_critics=3))
    with pytest.raises(CheckpointError, match="is of other dimensions"):
        load_checkpoint(saved, loss=other.loss_module)


def test_a_part_that_was_not_saved_is_named(tmp_path):
    path = save_checkpoint(tmp_path / "part.zip", small_config(), {"updates": 0})
    with pytest.raises(CheckpointError, match=r"cannot be loaded: .*missing=\['loss'\]"):
        load_checkpoint(path, loss=torch.nn.Linear(1, 1))


def test_settings_of_another_version_are_named(tmp_path):
    config = small_config()
    config.to_dict = lambda: {"learning_speed": 1.0}
    path = save_checkpoint(tmp_path / "old.zip", config, {})
    with pytest.raises(CheckpointError, match="another version or recipe: 'learning_speed'"):
        MPOTrainer.load(path)


def test_an_agent_of_a_device_that_is_not_here_is_loaded_on_the_cpu(trainer, tmp_path):
    config = small_config()
    config.device = "cuda:99"
    path = save_checkpoint(tmp_path / "far.zip", config, {"env_steps": 60}, **trainer.learner)
    with pytest.warns(UserWarning, match="is loaded on the CPU: device must be available here"):
        loaded = MPOTrainer.load(path)
    assert loaded.config.device == "cpu"
    assert torch.equal(loaded.policy(torch.zeros(3)), trainer.policy(torch.zeros(3)))


@pytest.mark.parametrize("protocol", [torch.save, lambda state, file: pickle.dump(state, file)])
def test_code_in_the_state_does_not_run(saved, tmp_path, protocol):
    buffer, trace = io.BytesIO(), tmp_path / "ran"
    protocol({"state": Hostile(trace)}, buffer)
    replace_member(saved, "state.pt", buffer.getvalue())
    with pytest.raises(
        CheckpointError,
        match="other than tensors and plain values|is damaged: state.pt is incomplete",
    ):
        MPOTrainer.load(saved)
    assert not trace.exists()


def test_code_beside_the_state_does_not_run(saved, tmp_path):
    """TorchRL's own adapter falls back to a TensorDict folder, and unpickles what is in it."""
    trace = tmp_path / "ran"
    with zipfile.ZipFile(saved) as archive:
        manifest = archive.read("manifest.json").decode()
        folder = next(n for n in archive.namelist() if n.endswith("loss/state.pt")).rsplit("/", 1)[
            0
        ]
    replace_member(saved, "loss/state.pt", None)
    tensordict, non_tensor = (
        f"<class 'tensordict.{name}'>" for name in ("_td.TensorDict", "tensorclass.NonTensorData")
    )
    root = {"a": {"type": "NonTensorData"}, "shape": [], "device": "cpu", "_type": tensordict}
    leaf = {"_type": non_tensor, "_is_non_tensor": True, "_metadata": None}
    hostile = {
        "state/meta.json": json.dumps(root),
        "state/a/meta.json": json.dumps(leaf),
        "state/a/other.pickle": pickle.dumps({"data": Hostile(trace)}),
        "state.json": json.dumps({"kind": "dict", "items": []}),
    }
    with zipfile.ZipFile(saved, "a") as archive:
        for name, content in hostile.items():
            archive.writestr(f"{folder}/{name}", content)
    names = ", ".join(f'"{name}"' for name in hostile)
    replace_member(saved, "manifest.json", manifest.replace('"state.pt"', names, 1))
    with pytest.raises(CheckpointError):
        MPOTrainer.load(saved)
    assert not trace.exists()


def test_a_file_name_cannot_leave_the_archive(saved):
    with zipfile.ZipFile(saved) as archive:
        manifest = archive.read("manifest.json").decode()
    replace_member(saved, "manifest.json", manifest.replace("state.pt", "../../state.pt"))
    with pytest.raises(CheckpointError):
        MPOTrainer.load(saved)


if __name__ == "__main__":
    pytest.main([__file__])
