from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from mpo_torchrl.trainer.curves import (
    IRRELEVANT,
    CurveError,
    confidence_band,
    group_runs,
    on_front,
    range_band,
    read_run,
)
from mpo_torchrl.trainer.ray_collection import RayConfig


def write_run(folder, returns, steps=None, **settings):
    folder.mkdir(parents=True)
    steps = steps or [10 * (index + 1) for index in range(len(returns))]
    rows = [f"{step},{value}" for step, value in zip(steps, returns, strict=True)]
    (folder / "progress.csv").write_text("\n".join(["env_steps,eval_return_mean", *rows]) + "\n")
    if settings:
        (folder / "settings.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def make_run(tmp_path):
    def make(*returns, steps=None, name=None, **settings):
        folder = tmp_path / (name or f"run{len(list(tmp_path.iterdir()))}")
        return read_run(write_run(folder, returns, steps, **settings))

    return make


def test_the_mean_is_that_over_runs(make_run):
    curve = confidence_band([make_run(1, 2), make_run(3, 6)], "eval_return_mean")
    assert curve.steps.tolist() == [10, 20]
    assert curve.mean.tolist() == [2, 4]


@pytest.mark.parametrize(
    ("returns", "quantile"), [((1, 3), 12.706), ((1, 2, 3), 4.303), ((0, 1, 2, 3), 3.182)]
)
def test_the_band_is_that_of_student_t(make_run, returns, quantile):
    curve = confidence_band([make_run(value) for value in returns], "eval_return_mean")
    half = quantile * np.std(returns, ddof=1) / math.sqrt(len(returns))
    np.testing.assert_allclose(curve.high - curve.mean, half)
    np.testing.assert_allclose(curve.mean - curve.low, half)


def test_a_point_is_on_the_front_unless_another_beats_it():
    points = np.array([[1.0, 3.0], [2.0, 2.0], [1.0, 2.0], [0.0, 3.0], [3.0, 0.0], [3.0, 0.0]])
    assert on_front(points).tolist() == [True, True, False, False, True, True]


def test_many_runs_have_the_band_of_the_normal(make_run):
    returns = list(range(30))
    curve = confidence_band([make_run(value) for value in returns], "eval_return_mean")
    half = 1.96 * np.std(returns, ddof=1) / math.sqrt(30)
    np.testing.assert_allclose(curve.high - curve.mean, half)


def test_one_run_has_no_band(make_run):
    curve = confidence_band([make_run(1, 2)], "eval_return_mean")
    assert curve.low.tolist() == curve.mean.tolist() == curve.high.tolist() == [1, 2]


def test_a_range_goes_from_the_least_to_the_greatest(make_run):
    curve = range_band([make_run(1), make_run(2), make_run(6)], "eval_return_mean")
    assert (curve.low.item(), curve.mean.item(), curve.high.item()) == (1, 3, 6)


def test_a_mean_ends_with_the_shortest_run(make_run):
    curve = confidence_band([make_run(1, 2, 3), make_run(1, 2)], "eval_return_mean")
    assert curve.steps.tolist() == [10, 20]


def test_between_evaluations_runs_are_interpolated(make_run):
    runs = [make_run(0, 4, steps=[10, 30]), make_run(0, 2, 2, steps=[10, 20, 30])]
    curve = confidence_band(runs, "eval_return_mean")
    assert curve.steps.tolist() == [10, 20, 30]
    assert curve.mean.tolist() == [0, 2, 3]


def test_a_metric_that_nobody_has_is_an_empty_curve(make_run):
    assert confidence_band([make_run(1)], "kl_mean").steps.size == 0


def test_runs_that_differ_by_seed_and_folder_are_one_group(make_run):
    runs = [make_run(1, env="A", seed=seed, run_dir=str(seed)) for seed in range(3)]
    assert group_runs(runs) == {"A": {"all runs": runs}}


def test_settings_that_are_no_difference_exist():
    assert {field.name for field in dataclasses.fields(RayConfig)} >= IRRELEVANT


def test_the_cluster_is_no_difference(make_run):
    runs = [make_run(1, env="A", seed=n, ray_address=f"host{n}:6379") for n in range(2)]
    assert group_runs(runs) == {"A": {"all runs": runs}}


def test_groups_are_named_by_what_sets_them_apart(make_run):
    wide = [make_run(1, env="A", seed=seed, epsilon=0.2, gamma=0.9) for seed in range(2)]
    narrow = [make_run(1, env="A", seed=0, epsilon=0.1, gamma=0.9)]
    other = [make_run(1, env="B", seed=0, epsilon=0.1, gamma=0.9)]
    assert group_runs([*wide, *narrow, *other]) == {
        "A": {"epsilon=0.2": wide, "epsilon=0.1": narrow},
        "B": {"all runs": other},
    }


def test_what_most_groups_have_in_common_is_not_repeated(make_run):
    usual = [make_run(1, env="A", epsilon=0.1, n_step=1)]
    greedy = [make_run(1, env="A", epsilon=0.5, n_step=1)]
    far = [make_run(1, env="A", epsilon=0.1, n_step=3)]
    assert group_runs([*usual, *greedy, *far]) == {
        "A": {"common settings": usual, "epsilon=0.5": greedy, "n_step=3": far}
    }


def test_a_group_that_lacks_a_setting_is_named_by_it(make_run):
    old = [make_run(1, env="A", epsilon=0.1)]
    new = [make_run(1, env="A", epsilon=0.1, n_step=n) for n in (1, 3)]
    assert group_runs([*old, *new]) == {
        "A": {"no n_step": old, "n_step=1": new[:1], "n_step=3": new[1:]}
    }


def test_a_group_with_many_settings_of_its_own_goes_by_its_folder(make_run):
    many = {f"setting_{number}": number for number in range(20)}
    other, usual = make_run(1, env="A", **many), make_run(1, env="A", **dict.fromkeys(many, 0))
    labels = group_runs([other, usual])["A"]
    assert labels == {
        f"{other.path}, 19 other settings": [other],
        f"{usual.path}, 19 other settings": [usual],
    }


def test_of_two_runs_with_one_seed_the_longer_one_counts(make_run):
    short, long = make_run(1, env="A", seed=0), make_run(1, 2, env="A", seed=0)
    assert group_runs([long, short]) == {"A": {"all runs": [long]}}


def test_tables_without_settings_are_a_group_of_their_own(make_run):
    runs = [make_run(1), make_run(2)]
    assert group_runs(runs) == {"environment unknown": {"all runs": runs}}


def test_a_table_is_a_run_too(tmp_path):
    folder = write_run(tmp_path / "run", [1, 2], env="A")
    assert read_run(folder / "progress.csv").settings == {"env": "A"}


def test_a_folder_without_a_row_is_no_run(tmp_path):
    assert read_run(tmp_path) is None
    assert read_run(tmp_path / "nowhere") is None
    assert read_run(write_run(tmp_path / "started", [])) is None


def test_an_empty_cell_is_no_value(tmp_path):
    (tmp_path / "progress.csv").write_text(
        "env_steps,eval_return_mean,kl_mean\n10,1,\n20,2,0.5\n30,3,0.7\n"
    )
    curve = range_band([read_run(tmp_path)], "kl_mean")
    assert (curve.steps.tolist(), curve.mean.tolist()) == ([20, 30], [0.5, 0.7])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "has no column 'env_steps'; it is no progress.csv of a run"),
        (b"a,b\n1,2\n", "has no column 'env_steps'; it is no progress.csv of a run"),
        (b"env_steps,updates\n1,2\n", "has no column 'eval_return_mean'"),
        (b"env_steps,eval_return_mean\n10,1\n20,oops\n", "line 3: eval_return_mean must be a num"),
        (b"env_steps,eval_return_mean\n20,1\n10,1\n", "env_steps must rise from row to row"),
        (b"env_steps,eval_return_mean\n,1\n", "env_steps must rise from row to row"),
        (b"\xff\xfe\x00\n", "cannot be read: "),
    ],
)
def test_a_table_that_is_none_is_named_with_its_fault(tmp_path, content, sentence):
    (tmp_path / "progress.csv").write_bytes(content)
    with pytest.raises(CurveError, match=sentence) as caught:
        read_run(tmp_path)
    assert str(tmp_path / "progress.csv") in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", "7"])
def test_settings_that_are_none_are_named(tmp_path, content):
    folder = write_run(tmp_path / "run", [1])
    (folder / "settings.json").write_text(content)
    with pytest.raises(CurveError, match=r"settings.json cannot be read"):
        read_run(folder)


if __name__ == "__main__":
    pytest.main([__file__])
