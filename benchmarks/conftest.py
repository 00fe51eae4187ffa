"""One row of the table a benchmark: what is measured, its ratio, what it must reach."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, NamedTuple

import pytest
import torch


class Row(NamedTuple):
    """A measured ratio and its bound; ``None`` for a reading without one."""

    name: str
    value: float
    bound: str
    reached: bool | None
    detail: str


TABLE: list[Row] = []


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Adds a row to the table: ``report(name, value, at_most=..., at_least=..., detail=...)``."""

    def add(
        name: str,
        value: float,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        detail: str = "",
    ) -> None:
        if at_most is not None:
            row = Row(name, value, f"<= {at_most:g}", value <= at_most, detail)
        elif at_least is not None:
            row = Row(name, value, f">= {at_least:g}", value >= at_least, detail)
        else:
            row = Row(name, value, "", None, detail)
        TABLE.append(row)

    return add


@pytest.fixture
def alternate(benchmark: Any) -> Callable[..., list[float]]:
    """Median seconds of functions measured in turn: ``alternate(ours, *peers, rounds=50)``.

    The speed of a machine drifts while it is measured, and a ratio of two medians taken one after
    the other drifts with it. So the peers run in the setup of every round of pytest-benchmark,
    which does not time it; we do.
    """

    def measure(
        ours: Callable[[], object],
        *peers: Callable[[], object],
        rounds: int,
        warmup: int = 5,
    ) -> list[float]:
        seconds: list[list[float]] = [[] for _ in peers]

        def run_peers() -> None:
            for peer, readings in zip(peers, seconds, strict=True):
                start = perf_counter()
                peer()
                readings.append(perf_counter() - start)

        benchmark.pedantic(ours, setup=run_peers, rounds=rounds, warmup_rounds=warmup)
        medians = [statistics.median(readings[warmup:]) for readings in seconds]
        benchmark.extra_info["peer_medians"] = medians
        return [benchmark.stats.stats.median, *medians]

    return measure


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    """The same random numbers for each benchmark, and nothing compiled for another's shapes."""
    torch.manual_seed(0)
    torch.compiler.reset()
    yield


def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]
) -> None:
    output_json["table"] = [row._asdict() for row in TABLE]
    output_json["machine_info"]["torch"] = torch.__version__
    output_json["machine_info"]["torch_threads"] = torch.get_num_threads()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not TABLE:
        return
    header = ("measured", "value", "must be", "", "detail")
    words = {True: "reached", False: "MISSED", None: ""}
    lines = [
        header,
        *((r.name, f"{r.value:.3g}", r.bound, words[r.reached], r.detail) for r in TABLE),
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    terminalreporter.section(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}"
    )
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        terminalreporter.write_line("  ".join(cells).rstrip())
