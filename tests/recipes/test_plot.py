"""Figures as a person draws them: from a shell, in an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest

from recipes import plot

RECIPE = Path(__file__).parents[2] / "recipes" / "plot.py"
COLUMNS = (
    "env_steps,eval_return_mean,temperature,alpha_mean,alpha_stddev,kl_e_step,kl_mean,kl_stddev,"
    "effective_sample_size"
)


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """Calls the recipe in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["plot.py", *map(str, arguments)])
        code = 0
        try:
            plot.main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def runs(tmp_path_factory):
    """Two seeds of one setting, one of another, and a run that has just begun."""
    parent = tmp_path_factory.mktemp("runs")
    for seed, epsilon in ((0, 0.1), (1, 0.1), (0, 0.2)):
        folder = parent / f"{seed}-{epsilon}"
        folder.mkdir()
        rows = f"{COLUMNS}\n10,-5,1,1,1,0.1,0.1,0.01,15\n20,-{seed},2,0.5,0.1,0.1,0.1,0.01,16\n"
        (folder / "progress.csv").write_text(rows)
        settings = {"env": "Pendulum-v1", "seed": seed, "epsilon": epsilon}
        (folder / "settings.json").write_text(json.dumps(settings))
    (parent / "begun").mkdir()
    return sorted(parent.iterdir())


def test_both_figures_are_drawn_and_nothing_else(runs, tmp_path):
    process = subprocess.run(
        [sys.executable, str(RECIPE), *map(str, runs)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines() == ["plots/learning_curves.png", "plots/duals.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["plots"]
    for line in process.stdout.splitlines():
        picture = matplotlib.image.imread(tmp_path / line)
        assert picture.std() > 0.05  # not an empty sheet


def test_a_run_without_an_evaluation_is_skipped_and_named(runs, call):
    code, _, errors = call(*runs)
    assert code == 0
    assert errors == f"skipped: {runs[-1]} has no evaluation in a progress.csv\n"


def test_the_folder_can_be_chosen(runs, call, tmp_path):
    assert call(*runs, "--output", "a/b")[0] == 0
    names = {path.name for path in (tmp_path / "a/b").iterdir()}
    assert names == {"learning_curves.png", "duals.png"}


def test_no_runs_is_one_sentence(call, tmp_path):
    code, _, errors = call("runs/*")
    assert code == 1
    sentence = "error: no runs found in runs/*; python recipes/mpo.py makes one."
    assert errors.splitlines()[-1] == sentence
    assert list(tmp_path.iterdir()) == []


def test_an_unreadable_table_is_one_sentence(runs, call):
    (runs[0] / "progress.csv").write_text("env_steps,eval_return_mean\n10,oops\n")
    code, _, errors = call(*runs)
    assert code == 1
    assert errors.endswith("line 2: eval_return_mean must be a number, got 'oops'.\n")


def test_a_folder_that_cannot_be_made_is_one_sentence(runs, call, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, _, errors = call(*runs, "--output", "file")
    assert code == 1
    assert errors.splitlines()[-1].startswith("error: ")


def test_help_says_what_the_band_is(call):
    assert "95% confidence band" in " ".join(call("--help")[1].split())


def test_runs_with_several_rewards_have_a_front_too(call, tmp_path):
    runs = tmp_path / "runs"
    for speed, epsilons in ((3, [0.1, 0.01]), (1, [0.01, 0.1])):
        folder = runs / str(speed)
        folder.mkdir(parents=True)
        columns = "env_steps,eval_return_mean,eval_return_mean_speed,eval_return_mean_energy"
        duals = "temperature_speed,kl_e_step_speed,kl_e_step_energy,effective_sample_size"
        (folder / "progress.csv").write_text(
            f"{columns},{duals}\n10,0,{speed},-{speed},1,0.1,0.01,9\n"
        )
        settings = {"env": "mo-halfcheetah-v5", "seed": 0, "epsilons": epsilons}
        (folder / "settings.json").write_text(json.dumps(settings))
    code, output, _ = call(*runs.iterdir())
    assert code == 0
    names = ("learning_curves", "duals", "pareto_front")
    assert output.split() == [f"plots/{name}.png" for name in names]
    picture = matplotlib.image.imread(tmp_path / "plots/pareto_front.png")
    assert picture.std() > 0


if __name__ == "__main__":
    pytest.main([__file__])
