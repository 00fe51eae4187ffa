from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from mpo_torchrl.trainer.curves import read_run
from mpo_torchrl.trainer.plot import draw_learning_curves


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "progress.csv"
    path.write_text("env_steps,eval_return_mean\n10,-5\n20,-3\n")
    return read_run(path)


@pytest.fixture
def draw(monkeypatch):
    """Draws learning curves, and gives the axes in the place of the file."""
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))

    def draw(*args):
        draw_learning_curves(Path("unused.png"), *args)
        return drawn[-1].axes

    return draw


def colors(axes):
    return {line.get_label(): line.get_color() for line in axes.lines}


def test_a_group_has_one_colour_in_all_environments(draw, run):
    first, second = draw({"A": {"ours": [run], "theirs": [run]}, "B": {"theirs": [run]}})
    assert colors(first)["theirs (1 seed)"] == colors(second)["theirs (1 seed)"]


def test_a_dozen_groups_have_a_dozen_colours(draw, run):
    (axes,) = draw({"A": {f"group {index}": [run] for index in range(12)}})
    assert len({tuple(color) for color in colors(axes).values()}) == 12


def test_a_level_is_a_broken_line_across_its_environment_alone(draw, run):
    groups = {"ours": [run]}
    first, second = draw({"A": groups, "B": groups}, {"A": {"goal": -4.0}})
    (level,) = (line for line in first.lines if line.get_label() == "goal: -4")
    assert np.allclose(level.get_ydata(), -4.0) and level.get_linestyle() != "-"
    assert len(second.lines) == 1


if __name__ == "__main__":
    pytest.main([__file__])
