from __future__ import annotations

import json

import pytest
import torch

from mpo_torchrl.trainer import (
    Progress,
    SettingError,
    TableLogger,
    final_metrics,
    make_run_dir,
    write_metrics,
)
from mpo_torchrl.trainer.plot import draw_learning_curve
from mpo_torchrl.trainer.results import progress_line
from tests.trainer.small import small_config


def test_an_unnamed_run_gets_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = make_run_dir(small_config())
    assert folder.is_dir()
    assert folder.parent.name == "runs"
    assert folder.name.startswith("Pendulum-v1-3-")


def test_runs_that_start_in_the_same_second_have_a_folder_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda _: "20260101-120000")
    folders = [make_run_dir(small_config()).name for _ in range(3)]
    first = "Pendulum-v1-3-20260101-120000"
    assert folders == [first, f"{first}-2", f"{first}-3"]


def test_a_run_in_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match="run_dir must be a folder, got the file '.*file'"):
        make_run_dir(small_config(run_dir=str(tmp_path / "file")))


def test_a_named_run_gets_its_folder_with_parents(tmp_path):
    assert make_run_dir(small_config(run_dir=str(tmp_path / "a" / "b"))).is_dir()


def test_mean_reward_is_the_mean_of_the_evaluation():
    progress = Progress()
    progress.note(torch.tensor([1.0, 3.0]))
    metrics = final_metrics(small_config(), progress, state_sha256="", diagnostics={})
    assert metrics["mean_reward"] == metrics["eval_return_mean"] == 2.0
    assert metrics["eval_return_stddev"] == 1.0


def test_metrics_are_json_even_without_a_number(tmp_path):
    write_metrics(tmp_path / "metrics.json", {"a": 1.0, "b": float("nan")})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"a": 1.0, "b": None}


def test_the_learning_curve_is_a_picture(tmp_path):
    table = TableLogger("progress", str(tmp_path))
    table.log_metrics({"eval_return_mean": 1.0, "eval_return_stddev": 0.5}, step=10)
    draw_learning_curve(tmp_path / "curve.png", table, "title")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_line_shows_steps_and_return():
    line = progress_line(2000, {"eval_return_mean": -150.0, "eval_return_stddev": 5.0})
    assert line.split() == ["2,000", "steps", "return", "-150.00", "+-", "5.00"]


if __name__ == "__main__":
    pytest.main([__file__])
