"""A trained agent as a person looks at it: from a shell, in an empty folder."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from mpo_torchrl.trainer import MPOTrainer
from recipes import evaluate
from tests.trainer.small import small_config

RECIPE = Path(__file__).parents[2] / "recipes" / "evaluate.py"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose training is over."""
    folder = tmp_path_factory.mktemp("run")
    MPOTrainer.from_config(small_config(run_dir=str(folder), eval_episodes=2)).train()
    return folder


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """Calls the recipe in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments])
        code = 0
        try:
            evaluate.main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return call


def test_returns_figures_and_a_film_are_left_and_nothing_else(run, tmp_path):
    process = subprocess.run(
        [sys.executable, str(RECIPE), f"run={run}", "episodes=3", "video=true", "output=here"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.returncode == 0, process.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    names = {path.name for path in (tmp_path / "here").iterdir()}
    assert names == {"evaluation.json", "video.mp4"}
    lines = process.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [["episode", str(i)] for i in range(3)]
    figures = json.loads((tmp_path / "here/evaluation.json").read_text())
    assert float(lines[-1].removeprefix("mean_reward: ")) == figures["mean_reward"]


def test_figures_are_those_of_the_returns(run, call):
    assert call(f"run={run}", "episodes=3")[0] == 0
    figures = json.loads((run / "evaluation.json").read_text())
    assert len(figures["returns"]) == figures["episodes"] == 3
    assert figures["mean_reward"] == pytest.approx(statistics.mean(figures["returns"]))
    assert figures["eval_return_stddev"] == pytest.approx(statistics.pstdev(figures["returns"]))
    assert (figures["env"], figures["env_steps"], figures["updates"]) == ("Pendulum-v1", 60, 30)
    assert "video" not in figures


def test_the_policy_is_that_of_the_run(run, call):
    call(f"run={run}", "episodes=2")
    figures = json.loads((run / "evaluation.json").read_text())
    trained = json.loads((run / "metrics.json").read_text())
    assert figures["mean_reward"] == pytest.approx(trained["mean_reward"])


def test_another_seed_gives_other_episodes(run, call):
    first, other, again = (call(f"run={run}", "episodes=1", f"seed={s}")[1] for s in (1, 2, 1))
    assert first == again != other


def test_a_checkpoint_file_is_a_run_too(run, call, tmp_path):
    code, output, _ = call(f"run={run}/checkpoint.zip", "episodes=1", "output=here")
    assert code == 0
    assert output == call(f"run={run}", "episodes=1")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "run must be the folder of a run or a checkpoint"),
        (["run=nowhere"], 1, "checkpoint 'nowhere/checkpoint.zip' does not exist."),
        (["run=.", "checkpoint=best.zip"], 1, "checkpoint 'best.zip' does not exist."),
        (["run=x", "episodes=0"], 2, "episodes must be at least 1, got 0."),
        (["run=x", "seed=-1"], 2, "seed must be between 0 and 2147483647, got -1."),
        (["run=x", f"seed={2**32}"], 2, "seed must be between 0 and 2147483647, got 4294967296."),
        (["run=x", "episodes=many"], 2, "episodes: Value 'many' of type 'str' could not be"),
        (["run=x", "video=perhaps"], 2, "video: Value 'perhaps' is not a valid bool"),
        (["run=x", "epsodes=3"], 2, "'epsodes=3' is no setting; write run=, checkpoint=, "),
        (["runs/x"], 2, "'runs/x' is no setting; write run=, "),
        (
            ["run=@best"],
            2,
            "a value in 'run=@best' cannot be read (found character '@' that cannot",
        ),
        (["run=[x"], 2, "a value in 'run=[x' cannot be read (expected ',' or ']'"),
    ],
)
def test_a_mistake_is_one_sentence(call, arguments, code, sentence, tmp_path):
    found, output, errors = call(*arguments)
    assert (found, output) == (code, "")
    assert errors.startswith(f"error: {sentence}")
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_setting(call):
    _, output, _ = call("--help")
    for name in ("run", "checkpoint", "episodes", "seed", "video", "output"):
        assert f"\n  {name} " in output


if __name__ == "__main__":
    pytest.main([__file__])
