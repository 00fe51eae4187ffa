from __future__ import annotations

import importlib.util
import os

import imageio_ffmpeg
import pytest
import torch

from mpo_torchrl.trainer import (
    MeanPolicy,
    SettingError,
    evaluate,
    make_env,
    make_evaluation_env,
    make_loss,
)
from mpo_torchrl.trainer.video import (
    record_episode,
    render_offscreen,
    require_encoder,
    write_video,
)
from tests.trainer.small import small_config


@pytest.fixture
def offscreen(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.fixture
def policy():
    torch.manual_seed(0)
    config = small_config()
    return MeanPolicy(make_loss(make_env(config.env), config)[0])


@pytest.fixture
def short_episodes(monkeypatch):
    for module in ("evaluation", "video"):
        monkeypatch.setattr(f"mpo_torchrl.trainer.{module}.MAX_EPISODE_STEPS", 20)


def frames_of(path):
    reader = imageio_ffmpeg.read_frames(str(path))
    metadata = next(reader)
    width, height = metadata["size"]
    pictures = [torch.frombuffer(bytearray(f), dtype=torch.uint8) for f in reader]
    return metadata, torch.stack(pictures).view(-1, height, width, 3).permute(0, 3, 1, 2)


def test_the_film_is_that_of_the_first_episode_of_an_evaluation(offscreen, short_episodes, policy):
    returns = evaluate(make_evaluation_env(small_config(eval_episodes=2)), policy, seed=7)
    filmed, _, _ = record_episode("Pendulum-v1", policy, seed=7)
    assert filmed == pytest.approx(returns[0].item())
    assert filmed != pytest.approx(returns[1].item())


def test_frames_are_every_second_step_at_the_speed_of_the_environment(
    offscreen, short_episodes, policy
):
    _, frames, frames_per_second = record_episode("Pendulum-v1", policy, seed=7)
    assert (frames.shape, frames.dtype) == ((10, 3, 500, 500), torch.uint8)
    assert frames_per_second == 15  # Pendulum is to be shown with 30
    assert (frames[1:] != frames[:-1]).flatten(1).any(1).all()  # it moves


def test_a_repeated_action_is_shown_at_the_speed_of_the_environment(
    offscreen, short_episodes, policy
):
    assert record_episode("Pendulum-v1", policy, seed=7, action_repeat=3)[2] == 5


def test_recording_leaves_the_random_state_alone(offscreen, short_episodes, policy):
    before = torch.get_rng_state()
    record_episode("Pendulum-v1", policy, seed=7)
    assert torch.equal(before, torch.get_rng_state())


def test_a_video_shows_its_frames_upright(tmp_path):
    frames = torch.zeros(5, 3, 32, 64, dtype=torch.uint8)
    frames[:, 0, :16, :32] = 255  # red, above on the left
    write_video(tmp_path / "video.mp4", frames, 10)
    metadata, shown = frames_of(tmp_path / "video.mp4")
    assert (metadata["codec"], metadata["fps"], len(shown)) == ("h264", 10, 5)
    assert (shown.float() - frames.float()).abs().mean() < 10
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


def test_a_missing_encoder_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"pip install 'mpo_torchrl\[video\]'"):
        require_encoder()


def test_an_environment_that_cannot_be_drawn_is_named(offscreen, policy, monkeypatch):
    import gymnasium.error

    def fail(self):
        raise gymnasium.error.DependencyNotInstalled("pygame is not installed")

    monkeypatch.setattr("gymnasium.envs.classic_control.pendulum.PendulumEnv.render", fail)
    with pytest.raises(SettingError, match=r"'Pendulum-v1' cannot be drawn .*pygame.*\[video\]"):
        record_episode("Pendulum-v1", policy, seed=7)


def test_without_a_display_drawing_goes_to_memory_unless_said_otherwise(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    render_offscreen()
    assert (os.environ["MUJOCO_GL"], os.environ["SDL_VIDEODRIVER"]) == ("osmesa", "dummy")


def test_with_a_display_nothing_is_changed(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    render_offscreen()
    assert "SDL_VIDEODRIVER" not in os.environ


if __name__ == "__main__":
    pytest.main([__file__])
