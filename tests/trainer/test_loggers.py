from __future__ import annotations

import csv
import importlib.util
import time

import pytest

from mpo_torchrl.trainer import MPOTrainer, SettingError, make_logger
from tests.trainer.small import small_config

ROW = {"eval_return_mean": -150.0, "updates": 7}


def log_two_rows(logger):
    logger.log_hparams({"seed": 3, "env": "Pendulum-v1"})
    logger.log_metrics(ROW, step=10)
    logger.log_metrics({**ROW, "temperature": 1.5}, step=20)
    logger.shutdown()


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_package_is_named_with_its_extra(name, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda wanted: None if wanted == name else found(wanted)
    )
    logger = make_logger(small_config(logger=name), tmp_path)
    with pytest.raises(SettingError, match=rf"pip install 'mpo_torchrl\[{name}\]'"):
        logger.log_hparams({})


def test_the_table_is_written_whatever_else_is(tmp_path):
    config = small_config(logger="tensorboard", run_dir=str(tmp_path))
    MPOTrainer.from_config(config).train()
    rows = list(csv.DictReader((tmp_path / "progress.csv").open()))
    assert [row["env_steps"] for row in rows] == ["30", "60"]


def test_a_logger_without_a_folder_is_refused():
    with pytest.raises(SettingError, match="logger 'wandb' needs a folder for its files"):
        MPOTrainer.from_config(small_config(logger="wandb"))


def test_a_trainer_that_is_only_looked_at_opens_nothing(tmp_path):
    MPOTrainer.from_config(small_config(logger="tensorboard", run_dir=str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]  # the folder is its own


def test_a_trainer_that_is_loaded_needs_no_logger(tmp_path):
    config = small_config(logger="tensorboard", run_dir=str(tmp_path))
    MPOTrainer.from_config(config).train()
    assert MPOTrainer.load(tmp_path / "checkpoint.zip").logger is None


def test_tensorboard_receives_every_metric_at_its_step(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_two_rows(make_logger(small_config(logger="tensorboard"), tmp_path))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    curve = [(event.step, event.value) for event in events.Scalars("eval_return_mean")]
    assert curve == [(10, -150.0), (20, -150.0)]
    assert [(event.step, event.value) for event in events.Scalars("temperature")] == [(20, 1.5)]


def test_wandb_works_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    log_two_rows(make_logger(small_config(logger="wandb"), tmp_path))
    (written,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 60
    while b"temperature" not in written.read_bytes():  # a process of W&B's writes it
        assert time.monotonic() < deadline, "W&B wrote no metrics"
        time.sleep(0.05)
    content = written.read_bytes()
    assert b"Pendulum-v1" in content
    assert content.count(b"-150") >= 2  # a row is text in there


def test_mlflow_receives_every_metric_at_its_step(tmp_path, monkeypatch):
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    log_two_rows(make_logger(small_config(logger="mlflow"), tmp_path / "first"))
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'first' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mpo-Pendulum-v1")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.data.params == {"seed": "3", "env": "Pendulum-v1"}
    history = client.get_metric_history(run.info.run_id, "eval_return_mean")
    assert [(metric.step, metric.value) for metric in history] == [(10, -150.0), (20, -150.0)]


def test_a_closed_trainer_leaves_mlflow_to_the_next_one(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("first", "second"):
        config = small_config(logger="mlflow", run_dir=str(tmp_path / name))
        trainer = MPOTrainer.from_config(config)
        trainer.train()
        trainer.close()
        assert (tmp_path / name / "mlflow.db").is_file()


def test_a_trainer_in_the_home_folder_has_one_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    MPOTrainer.from_config(small_config(run_dir="~/run")).train()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert {"progress.csv", "metrics.json"} < {path.name for path in (tmp_path / "run").iterdir()}


def test_a_logger_that_refuses_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "tensorboard").write_text("in the way")
    logger = make_logger(small_config(logger="tensorboard"), tmp_path)
    with pytest.raises(SettingError, match="logger 'tensorboard' cannot be opened: .+") as caught:
        logger.log_hparams({})
    assert "\n" not in str(caught.value)


if __name__ == "__main__":
    pytest.main([__file__])
