"""Where the time of an update goes, by part: ``python -m benchmarks.profile_parts``.

A part's time is its own: what runs inside another part counts there alone. What is left of the
call of the loss is the framework: checks, dispatch and the TensorDict that comes out.
"""

from __future__ import annotations

import functools
import statistics
from collections import defaultdict
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch

from benchmarks.workloads import HALFCHEETAH, PENDULUM, Shape, Update, mpo_update

# Method of the loss -> part. A critic target is one part, whatever it calls.
METHODS = {
    "_value_target": "critic target",
    "_qvalue_terms": "critic loss",
    "_improve": "sampling",
    "_predict": "scoring",
    "_temperature_terms": "dual",
    "_policy_terms": "dual",
    "_fit": "M-step",
    "forward": "framework",
}
PARTS = [
    "sampling",
    "scoring",
    "critic target",
    "critic loss",
    "M-step",
    "dual",
    "backward",
    "optimizer",
    "target update",
    "framework",
]


class Clock:
    """Adds up the seconds each part spends outside the parts it calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if "critic target" in self._running:
                return function(*args, **kwargs)
            self._lap()
            self._running.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self._lap()
                self._running.pop()

        return wrapper

    def _lap(self) -> None:
        now = perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now

    def read(self) -> dict[str, float]:
        seconds, self.seconds = self.seconds, defaultdict(float)
        return seconds


def watch(update: Update, clock: Clock) -> Callable[[], object]:
    """The same update with every part on the clock."""
    for method, part in METHODS.items():
        setattr(update.loss, method, clock.timed(part, getattr(update.loss, method)))
    optimizer, targets = update.optimizer, update.targets
    optimizer.step = clock.timed("optimizer", optimizer.step)  # type: ignore[method-assign]
    optimizer.zero_grad = clock.timed("optimizer", optimizer.zero_grad)  # type: ignore[method-assign]
    targets.step = clock.timed("target update", targets.step)
    return clock.timed("framework", update)


def measure(shape: Shape, rounds: int = 200, warmup: int = 20) -> dict[str, float]:
    """Median seconds by part."""
    clock = Clock()
    backward = torch.Tensor.backward
    torch.Tensor.backward = clock.timed("backward", backward)  # type: ignore[method-assign]
    try:
        update = watch(mpo_update(shape), clock)
        readings = []
        for _ in range(warmup + rounds):
            update()
            readings.append(clock.read())
    finally:
        torch.Tensor.backward = backward  # type: ignore[method-assign]
    return {part: statistics.median(r[part] for r in readings[warmup:]) for part in PARTS}


def main() -> None:
    columns = {shape.env: measure(shape) for shape in (HALFCHEETAH, PENDULUM)}
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; ms and share\n")
    print("| part | " + " | ".join(columns) + " |")
    print("| --- |" + " ---: |" * len(columns))
    for part in [*PARTS, "update"]:
        cells = []
        for seconds in columns.values():
            total = sum(seconds.values())
            value = seconds.get(part, total)
            cells.append(f"{value * 1e3:.2f} ({value / total:.0%})")
        print(f"| {part} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
