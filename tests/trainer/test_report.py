from __future__ import annotations

import csv
import json

import pytest
import torch

from mpo_torchrl.trainer import NonFiniteError, Progress, Report, TableLogger
from tests.trainer.small import small_config


class Returns:
    """Evaluations with these returns, one after another."""

    def __init__(self, *returns):
        self.left = [torch.tensor([value]) for value in returns]

    def __call__(self):
        return self.left.pop(0)


def make_report(play, **parts):
    return Report(
        config=small_config(),
        progress=Progress(env_steps=100),
        learner={"loss": torch.nn.Linear(2, 1)},
        play=play,
        **parts,
    )


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_an_evaluation_is_a_row_at_its_step(tmp_path):
    report = make_report(Returns(3.0), logger=TableLogger("progress", str(tmp_path)))
    report.evaluate()
    (row,) = csv.DictReader((tmp_path / "progress.csv").open())
    assert (row["env_steps"], row["eval_return_mean"]) == ("100", "3.0")


def test_only_the_best_evaluation_is_kept_as_such(tmp_path):
    report = make_report(Returns(3.0, 2.0), run_dir=tmp_path)
    report.evaluate()
    best = (tmp_path / "best.zip").read_bytes()
    report.learner["loss"].weight.data.fill_(7.0)
    report.evaluate()
    assert (tmp_path / "best.zip").read_bytes() == best
    assert (tmp_path / "checkpoint.zip").read_bytes() != best


def test_the_end_is_evaluated_once():
    report = make_report(Returns(3.0))
    report.evaluate()
    assert report.finish({})["mean_reward"] == 3.0


def test_an_end_without_an_evaluation_gets_one():
    assert make_report(Returns(3.0)).finish({})["mean_reward"] == 3.0


def test_figures_of_the_caller_take_the_place_of_others(tmp_path):
    report = make_report(Returns(3.0), run_dir=tmp_path)
    report.finish({"kl_mean": 0.5}, env_steps=0)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["env_steps"], metrics["kl_mean"]) == (0, 0.5)


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_report(Returns(3.0)).finish({})
    assert not names(tmp_path)


def test_a_bad_number_keeps_what_was_learned_before(tmp_path):
    report = make_report(Returns(), run_dir=tmp_path)
    with pytest.raises(NonFiniteError, match=r"bad\. The last good state is in .*checkpoint\.zip"):
        stop_at_a_bad_number(report)
    assert names(tmp_path) == {"checkpoint.zip"}


def test_a_learner_that_is_bad_itself_is_not_kept(tmp_path):
    report = make_report(Returns(), run_dir=tmp_path)
    report.learner["loss"].weight.data.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match=r"bad\. No state was saved"):
        stop_at_a_bad_number(report)
    assert not names(tmp_path)


def stop_at_a_bad_number(report):
    with report.keeping_last_good():
        raise NonFiniteError("bad.")


if __name__ == "__main__":
    pytest.main([__file__])
