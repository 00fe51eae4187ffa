"""States to resume from: found, refused, damaged, full disks."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
from pathlib import Path

import pytest
import torch
from torchrl.checkpoint import CheckpointError

from mpo_torchrl.trainer import MPOTrainer, SettingError
from tests.trainer.small import same_figures, small_config
from tests.trainer.test_checkpoint import Hostile

# States at 50 and 60 steps stay: two are kept.
SETTINGS = {"total_timesteps": 60, "checkpoint_every": 10, "learning_starts": 20}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run, and what it ended with."""
    folder = tmp_path_factory.mktemp("finished")
    metrics = MPOTrainer.from_config(small_config(**SETTINGS, run_dir=str(folder))).train()
    return folder, metrics


@pytest.fixture
def run_dir(finished, tmp_path):
    """A folder of one's own with that run."""
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


@pytest.fixture
def said(monkeypatch):
    """What was said in warnings."""
    texts = []
    monkeypatch.setattr(
        "torchrl.torchrl_logger.warning", lambda text, *args: texts.append(text % args)
    )
    return texts


def resume(run_dir, **settings):
    return MPOTrainer.from_config(small_config(**{**SETTINGS, **settings}, run_dir=str(run_dir)))


def states(run_dir):
    return sorted(path.name for path in (run_dir / "resume").iterdir())


def state_file(run_dir, step=60, component="loss"):
    return next((run_dir / f"resume/checkpoint-{step:012d}/components").glob(f"*-{component}/*.pt"))


def test_a_run_goes_on_from_its_newest_state(run_dir):
    trainer = resume(run_dir, total_timesteps=80)
    assert (trainer.collected_frames, trainer.updates) == (60, 50)
    assert trainer.train()["env_steps"] == 80


def test_a_finished_run_ends_again_with_the_same_figures(finished, run_dir):
    assert same_figures(resume(run_dir).train(), finished[1])


def test_the_newest_states_stay(run_dir):
    assert states(run_dir) == ["checkpoint-000000000050", "checkpoint-000000000060"]


def test_more_states_stay_if_asked_to(tmp_path):
    resume(tmp_path, keep_checkpoints=4).train()
    assert [int(name[-3:]) for name in states(tmp_path)] == [30, 40, 50, 60]


def test_never_starts_afresh_and_removes_the_old_states(run_dir):
    trainer = resume(run_dir, resume="never")
    assert trainer.collected_frames == 0
    assert not (run_dir / "resume").exists()


def test_must_refuses_to_start_afresh(tmp_path):
    with pytest.raises(SettingError, match="resume=must needs a run_dir with a run to continue"):
        resume(tmp_path, resume="must")


def test_a_folder_without_states_starts_afresh(run_dir):
    shutil.rmtree(run_dir / "resume")
    assert resume(run_dir).collected_frames == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("epsilon", 0.2), ("seed", 4), ("hidden", 32), ("env", "MountainCarContinuous-v0")],
)
def test_a_run_with_other_settings_is_refused_by_name(run_dir, name, value):
    before = states(run_dir)
    with pytest.raises(
        SettingError, match=rf"other settings \({name}=.* not {value}\): take those"
    ):
        resume(run_dir, **{name: value})
    assert states(run_dir) == before


def test_settings_of_evaluation_and_saving_may_change(run_dir):
    changed = {"eval_every": 15, "eval_episodes": 2, "checkpoint_every": 7, "keep_checkpoints": 1}
    assert resume(run_dir, **changed).collected_frames == 60


def flip(path):
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: flip(state_file(run, component="loss")),
        lambda run: flip(state_file(run, component="replay_buffer")),
        lambda run: state_file(run, component="optimizer").write_bytes(b""),
        lambda run: state_file(run, component="collector").unlink(),
        lambda run: (state_file(run).parents[2] / "manifest.json").write_text("{"),
        lambda run: (state_file(run).parents[2] / "manifest.json").unlink(),
        lambda run: shutil.rmtree(state_file(run).parents[1]),
    ],
    ids=["bit", "replay bit", "empty", "missing", "manifest", "no manifest", "no components"],
)
def test_a_damaged_newest_state_falls_back_to_the_one_before_and_says_so(
    finished, run_dir, said, damage
):
    damage(run_dir)
    trainer = resume(run_dir)
    assert trainer.collected_frames == 50
    (sentence,) = said
    assert "checkpoint-000000000060' is damaged" in sentence
    assert sentence.endswith("The run continues from checkpoint-000000000050.")
    metrics = trainer.train()
    assert metrics["state_sha256"] == finished[1]["state_sha256"]
    assert "damaged-checkpoint-000000000060" in states(run_dir)


def test_no_good_state_at_all_is_an_error_and_not_a_fresh_start(run_dir):
    for step in (50, 60):
        flip(state_file(run_dir, step))
    with pytest.raises(CheckpointError, match="none of the 2 states .* resume=never removes them"):
        resume(run_dir)


@pytest.mark.parametrize("component", ["loss", "collector", "replay_buffer", "random_state"])
def test_code_in_a_state_does_not_run(run_dir, tmp_path, said, component):
    trace, hostile = tmp_path / "ran", io.BytesIO()
    torch.save({"state": Hostile(trace)}, hostile)
    state_file(run_dir, component=component).write_bytes(hostile.getvalue())
    assert resume(run_dir).collected_frames == 50
    assert not trace.exists()
    assert "holds something other than tensors and plain values" in said[0]


def test_a_file_name_in_a_state_cannot_leave_its_folder(run_dir, said):
    path = state_file(run_dir, component="replay_buffer").parent / "state.pt"
    state = torch.load(path, weights_only=True)
    state["files"] = ["../../../" + name for name in state["files"]]
    torch.save(state, path)
    assert resume(run_dir).collected_frames == 60  # read from its own folder all the same


def test_what_a_killed_process_left_is_removed(run_dir):
    for name in (".checkpoint-000000000070.stage-1", ".checkpoint-000000000040.delete-2"):
        (run_dir / "resume" / name).mkdir()
    (run_dir / ".checkpoint.zip.unfinished").write_bytes(b"half")
    resume(run_dir)
    assert states(run_dir) == ["checkpoint-000000000050", "checkpoint-000000000060"]
    assert not (run_dir / ".checkpoint.zip.unfinished").exists()


def test_rows_after_the_state_are_not_doubled(finished, run_dir):
    shutil.rmtree(run_dir / "resume/checkpoint-000000000060")
    resume(run_dir).train()
    rows = (run_dir / "progress.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["env_steps", "30", "60"]


def test_a_full_disk_stops_the_run_and_leaves_the_last_state(run_dir, monkeypatch):
    trainer = resume(run_dir, total_timesteps=100, eval_every=1000)
    save = torch.save

    def full(state, path):
        if trainer.collected_frames == 80:
            raise RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0")
        save(state, path)

    monkeypatch.setattr("torch.save", full)
    with pytest.raises(
        CheckpointError, match="cannot be written: .* continues from checkpoint-000000000070"
    ):
        trainer.train()
    monkeypatch.undo()
    assert states(run_dir) == ["checkpoint-000000000060", "checkpoint-000000000070"]
    assert resume(run_dir, total_timesteps=100).collected_frames == 70


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_stops_the_run(run_dir):
    trainer = resume(run_dir, total_timesteps=100, eval_every=1000)
    (run_dir / "resume").chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(CheckpointError, match="cannot be written: Permission denied"):
            trainer.train()
    finally:
        (run_dir / "resume").chmod(stat.S_IRWXU)
    assert resume(run_dir, total_timesteps=100).collected_frames == 60


def test_best_zip_is_the_learner_of_the_best_evaluation(run_dir):
    rows = [line.split(",") for line in (run_dir / "progress.csv").read_text().splitlines()]
    column = rows[0].index("eval_return_mean")
    best = max(rows[1:], key=lambda row: float(row[column]))
    assert MPOTrainer.load(run_dir / "best.zip").collected_frames == int(best[0])


def test_a_state_tells_its_settings_without_being_loaded(run_dir):
    manifest = json.loads((run_dir / "resume/checkpoint-000000000060/manifest.json").read_text())
    assert manifest["metadata"]["config"]["env"] == "Pendulum-v1"
    assert manifest["metadata"]["counters"] == {"env_steps": 60, "updates": 50}


if __name__ == "__main__":
    pytest.main([__file__])
