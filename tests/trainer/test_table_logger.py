from __future__ import annotations

import csv
import json

import pytest
import torch
from torchrl.record.loggers import CSVLogger

from mpo_torchrl.trainer import TableLogger


def rows(logger):
    return list(csv.DictReader(logger.path.open()))


def test_a_step_is_a_row_and_a_metric_a_column(tmp_path):
    logger = TableLogger("progress", str(tmp_path))
    logger.log_metrics({"a": 1.0, "b": torch.tensor(2.0)}, step=10)
    logger.log_metrics({"a": 3.0, "b": 4.0}, step=20)
    assert rows(logger) == [
        {"env_steps": "10", "a": "1.0", "b": "2.0"},
        {"env_steps": "20", "a": "3.0", "b": "4.0"},
    ]


def test_scalars_of_one_step_share_a_row(tmp_path):
    logger = TableLogger("progress", str(tmp_path))
    logger.log_scalar("a", 1.0, step=5)
    logger.log_scalar("b", 2.0, step=5)
    assert rows(logger) == [{"env_steps": "5", "a": "1.0", "b": "2.0"}]


def test_a_column_may_come_later(tmp_path):
    logger = TableLogger("progress", str(tmp_path))
    logger.log_metrics({"a": 1.0}, step=1)
    logger.log_metrics({"a": 2.0, "b": 3.0}, step=2)
    assert [row["b"] for row in rows(logger)] == ["", "3.0"]


def test_a_table_holds_no_video(tmp_path):
    with pytest.raises(NotImplementedError, match="holds no video"):
        TableLogger("progress", str(tmp_path)).log_video("v", torch.zeros(1))


def test_a_table_holds_no_histogram(tmp_path):
    with pytest.raises(NotImplementedError, match="holds no histogram"):
        TableLogger("progress", str(tmp_path)).log_histogram("h", [1.0])


def test_settings_are_written_beside_the_table(tmp_path):
    TableLogger("progress", str(tmp_path)).log_hparams({"seed": 3})
    assert json.loads((tmp_path / "settings.json").read_text()) == {"seed": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


def test_a_table_goes_on_from_its_state(tmp_path):
    logger = TableLogger("progress", str(tmp_path))
    logger.log_metrics({"a": 1.0}, step=1)
    state = logger.state_dict()
    logger.log_metrics({"a": 2.0, "b": 2.0}, step=2)
    loaded = TableLogger("progress", str(tmp_path))
    loaded.load_state_dict(state)
    assert rows(loaded) == [{"env_steps": "1", "a": "1.0"}]
    loaded.log_metrics({"c": 3.0}, step=2)
    assert rows(loaded)[1] == {"env_steps": "2", "a": "", "c": "3.0"}


@pytest.fixture
def pair(tmp_path):
    """A table, and what TorchRL's CSVLogger received beside it."""
    logger = TableLogger(
        "progress", str(tmp_path), also=lambda: CSVLogger("other", log_dir=str(tmp_path))
    )
    return logger, tmp_path / "other"


def test_another_logger_is_opened_by_the_first_use(pair):
    logger, other = pair
    assert not other.exists()
    logger.log_metrics({"a": 1.0}, step=10)
    assert (other / "scalars/a.csv").read_text() == "10,1.0\n"


def test_another_logger_receives_a_value_once(pair):
    logger, other = pair
    logger.log_metrics({"a": 1.0, "b": 2.0}, step=10)
    logger.log_scalar("a", 1.0, step=10)
    logger.log_scalar("a", 1.0, step=20)
    assert (other / "scalars/a.csv").read_text() == "10,1.0\n20,1.0\n"


def test_another_logger_receives_settings_once(pair):
    logger, other = pair
    logger.log_hparams({"seed": 3})
    logger.log_hparams({"seed": 4})
    assert [path.read_text() for path in (other / "texts").iterdir()] == ["seed: 3"]


def test_another_logger_receives_videos(pair):
    logger, other = pair
    logger.log_video("v", torch.zeros(1, 2, 3, 8, 8, dtype=torch.uint8), step=7)
    assert (other / "videos/v_7.pt").is_file()


if __name__ == "__main__":
    pytest.main([__file__])
