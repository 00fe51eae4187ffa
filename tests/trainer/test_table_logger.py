from __future__ import annotations

import csv

import pytest
import torch

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


if __name__ == "__main__":
    pytest.main([__file__])
