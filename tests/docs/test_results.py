"""The tables of the results are those of the CSV files beside them."""

from __future__ import annotations

import importlib
import re
import sys
from types import ModuleType

import numpy as np
import pytest

from mpo_torchrl.trainer.curves import measured, read_run
from tests.docs.markdown import ROOT

RESULTS = ROOT / "docs" / "results"
RETURN = re.compile(r"(?<![\d.])-?\d{2,}\.\d(?!\d)")


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(RESULTS))
    return importlib.import_module("tables")


def test_tables_are_those_of_the_runs(tables: ModuleType) -> None:
    page = tables.PAGE.read_text()
    assert tables.with_tables(page) == page, "make results writes them anew"


def test_a_page_without_a_place_for_a_table_is_an_error(tables: ModuleType) -> None:
    with pytest.raises(ValueError, match="no place for the table"):
        tables.fill("# Results", "summary", "| a |")


def test_every_return_among_the_findings_is_that_of_a_run(tables: ModuleType) -> None:
    found = set(RETURN.findall((RESULTS / "sample_efficiency.md").read_text()))
    assert found
    assert found <= returns_of_the_runs(tables), "a run's evaluation or area has no such value"


def returns_of_the_runs(tables: ModuleType) -> set[str]:
    """Every evaluation and the area of every run, as the pages write them."""
    paths = [
        path for folder in ("benchmark", "ablations") for path in RESULTS.glob(f"{folder}/**/*.csv")
    ]
    runs = [run for path in paths if (run := read_run(path)) is not None]
    values = [tables.area(run) for run in runs]
    for run in runs:
        values += measured(run, "eval_return_mean")[1].tolist()
    return {f"{value:.1f}" for value in values}


def test_interquartile_mean_is_that_of_the_middle_half(tables: ModuleType) -> None:
    mean = tables.interquartile_mean(np.array([-100.0, 1.0]), np.array([3.0, 50.0]))
    assert mean == pytest.approx(2.0)


def test_interval_draws_seeds_within_each_task(tables: ModuleType) -> None:
    # Drawn across tasks, means between 0 and 100 would come out.
    low, high = tables.stratified_interval([np.zeros(3), np.full(3, 100.0)])
    assert low == high == pytest.approx(50.0)


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
