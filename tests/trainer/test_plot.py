from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from mpo_torchrl.trainer.curves import read_run
from mpo_torchrl.trainer.plot import draw_duals, draw_learning_curves


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "progress.csv"
    path.write_text("env_steps,eval_return_mean\n10,-5\n20,-3\n")
    return read_run(path)


@pytest.fixture
def drawn(monkeypatch):
    """The figures, in the place of files."""
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    return drawn


@pytest.fixture
def draw(drawn):
    """Draws learning curves, and gives the axes in the place of the file."""

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


def test_a_run_of_one_evaluation_is_a_point(draw, run):
    once = run._replace(table={name: values[:1] for name, values in run.table.items()})
    (axes,) = draw({"A": {"once": [once], "ours": [run]}})
    assert [line.get_marker() for line in axes.lines] == [".", "None"]


def test_steps_of_a_run_on_a_data_set_are_called_updates(draw, run):
    offline = run._replace(settings={"dataset": "pendulum/medium-v0"})
    first, second, third = draw(
        {"A": {"x": [offline]}, "B": {"x": [run]}, "C": {"x": [offline, run]}}
    )
    assert first.get_xlabel() == "updates"
    assert second.get_xlabel() == "environment steps"
    assert third.get_xlabel() == "environment steps or updates"


def test_a_run_of_several_rewards_that_has_learned_nothing_yet_is_drawn(run, drawn):
    settings = {"epsilons": [0.1, 0.01], "objectives": ["time", "fuel"]}
    draw_duals(Path("unused.png"), {"A": {"ours": [run._replace(settings=settings)]}})
    assert len(drawn) == 1


def test_a_legend_of_many_lines_does_not_press_the_axes_flat(draw, run):
    label = ", ".join(f"setting_{index}={index}" for index in range(40))
    (axes,) = draw({"A": {label: [run]}})
    axes.figure.draw_without_rendering()
    legend = axes.get_legend().get_window_extent()
    assert not legend.overlaps(axes.xaxis.label.get_window_extent())


@pytest.mark.parametrize(
    ("settings", "labels"),
    [
        (
            {"n_action_samples": 20, "policy": "gaussian", "batch_size": 32},
            ["n_action_samples = 20"],
        ),
        ({"n_action_samples": 20, "policy": "categorical", "batch_size": 32}, []),
        ({"n_action_samples": 4, "dataset": "a/b-v0", "batch_size": 32}, ["batch_size = 32"]),
        ({"policy": "gaussian", "batch_size": 32}, []),  # of V-MPO
    ],
)
def test_the_effective_sample_size_stands_below_what_it_can_be(settings, labels, run, drawn):
    draw_duals(Path("unused.png"), {"A": {"ours": [run._replace(settings=settings)]}})
    *_, axes = drawn[-1].axes
    assert [line.get_label() for line in axes.lines] == labels


if __name__ == "__main__":
    pytest.main([__file__])
