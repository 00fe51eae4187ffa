"""How far a run has come."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor


@dataclasses.dataclass
class Progress:
    """Counters of a run, the last and the best evaluation, and the time it took.

    Of several rewards the return of an episode is their sum.

    Args:
        objectives (sequence of str): the names of several rewards; none for one.

    Keyword Args:
        env_steps (int): environment steps so far.
        updates (int): optimizer steps so far.
        returns (list of float): of the episodes of the last evaluation.
        objective_means (dict): of the last evaluation, the mean return of each of several rewards.
        evaluated_at (int): the environment steps at which it was; -1 before the first.
        best_return (float): the highest mean of an evaluation.
        seconds (float): of training, until the clock was started last.
        started (float, optional): when that was; ``None`` while it stands still.

    Examples:
        >>> import torch
        >>> progress = Progress(env_steps=10)
        >>> progress.note(torch.tensor([-3.0, -1.0])), progress.note(torch.tensor([-5.0]))
        (True, False)
        >>> progress.returns, progress.best_return, progress.evaluated_at
        ([-5.0], -2.0, 10)
    """

    objectives: Sequence[str] = ()
    _: dataclasses.KW_ONLY
    env_steps: int = 0
    updates: int = 0
    returns: list[float] = dataclasses.field(default_factory=list)
    objective_means: dict[str, float] = dataclasses.field(default_factory=dict)
    evaluated_at: int = -1
    best_return: float = -math.inf
    seconds: float = 0.0  # until the clock was started last
    started: float | None = None

    def start_clock(self) -> None:
        """Count the seconds from now on."""
        self.started = time.perf_counter()

    def stop_clock(self) -> None:
        """Count no further."""
        self.seconds, self.started = self.wall_seconds, None

    @property
    def wall_seconds(self) -> float:
        """Seconds in which the clock ran, in this session and those before."""
        now = 0.0 if self.started is None else time.perf_counter() - self.started
        return self.seconds + now

    @property
    def counters(self) -> dict[str, int]:
        """What a checkpoint tells without being loaded."""
        return {"env_steps": self.env_steps, "updates": self.updates}

    def note(self, returns: Tensor) -> bool:
        """Keep the returns of an evaluation; whether their mean is the best so far.

        Args:
            returns (Tensor): ``[E]`` of its episodes, or ``[E, K]`` of ``K`` rewards.
        """
        if self.objectives:
            means = returns.mean(0).tolist()
            self.objective_means = dict(zip(self.objectives, means, strict=True))
            returns = returns.sum(-1)
        self.returns, self.evaluated_at = returns.tolist(), self.env_steps
        best = returns.mean().item() > self.best_return
        if best:
            self.best_return = returns.mean().item()
        return best

    def state_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        state = dataclasses.asdict(self)
        del state["started"], state["objectives"]
        return {**state, "seconds": self.wall_seconds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; what it does not hold stays."""
        for name, value in state.items():
            setattr(self, name, value)
        if self.started is not None:
            self.start_clock()
