"""The tables of the results are those of the CSV files beside them."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import numpy as np
import pytest

from tests.docs.markdown import ROOT


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "results"))
    return importlib.import_module("tables")


def test_tables_are_those_of_the_runs(tables: ModuleType) -> None:
    page = tables.PAGE.read_text()
    assert tables.with_tables(page) == page, "make results writes them anew"


def test_a_page_without_a_place_for_a_table_is_an_error(tables: ModuleType) -> None:
    with pytest.raises(ValueError, match="no place for the table"):
        tables.fill("# Results", "summary", "| a |")


def test_interquartile_mean_is_that_of_the_middle_half(tables: ModuleType) -> None:
    mean = tables.interquartile_mean(np.array([-100.0, 1.0]), np.array([3.0, 50.0]))
    assert mean == pytest.approx(2.0)


def test_interval_draws_seeds_within_each_task(tables: ModuleType) -> None:
    # Drawn across tasks, means between 0 and 100 would come out.
    low, high = tables.stratified_interval([np.zeros(3), np.full(3, 100.0)])
    assert low == high == pytest.approx(50.0)


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
