"""An episode as a film, on machines without a screen too. Needs the ``video`` extra."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.envs import EnvBase, ExcludeTransform
from torchrl.record import PixelRenderTransform, VideoRecorder

from mpo_torchrl.trainer.environment import make_env
from mpo_torchrl.trainer.evaluation import MAX_EPISODE_STEPS
from mpo_torchrl.trainer.seeding import keep_random_state, seed_everything
from mpo_torchrl.trainer.settings import SettingError


def render_offscreen() -> None:
    """Without a display, let MuJoCo draw through EGL and Pygame into memory.

    Must come before an environment is made. What is set already stays: ``MUJOCO_GL=osmesa`` draws
    on the CPU where there is no EGL.
    """
    if not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def record_episode(
    name: str, policy: TensorDictModuleBase, seed: int, **settings: Any
) -> tuple[float, Tensor, int]:
    """Play one episode and film it.

    Args:
        name (str): the environment.
        policy (TensorDictModuleBase): what to play, e.g. a
            :class:`~mpo_torchrl.trainer.MeanPolicy`.
        seed (int): fixes the state that the episode starts from: it is the first episode of
            :func:`~mpo_torchrl.trainer.evaluate` with this seed.
        **settings: how the environment is made, further keywords of
            :func:`~mpo_torchrl.trainer.make_env`.

    Returns:
        tuple[float, Tensor, int]: the undiscounted return, the frames ``[T, 3, H, W]`` in bytes,
        and how many of them make a second of the environment's time.

    Raises:
        SettingError: if the environment cannot be made or drawn.
    """
    env = make_env(name, render=True, **settings)
    try:
        # Every second frame, as TorchRL does by itself for one environment: half the memory.
        recorder = VideoRecorder(logger=None, tag=None, skip=2)
        pixels = PixelRenderTransform(preproc=np.ascontiguousarray)  # MuJoCo's come upside down
        filmed = env.append_transform(pixels).append_transform(recorder)
        filmed.append_transform(ExcludeTransform("pixels"))  # or the rollout would keep them all
        _ = filmed.observation_spec  # resets the environment and draws it to find the frame's size
    except Exception as error:  # Pygame, MuJoCo and OpenGL each raise errors of their own
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise SettingError(
            f"env {name!r} cannot be drawn with MUJOCO_GL={os.environ.get('MUJOCO_GL')}: "
            f"{reason[0]}; pip install 'mpo_torchrl[video]', and for MuJoCo the system's libegl1, "
            "or libosmesa6 with MUJOCO_GL=osmesa."
        ) from error
    recorder.dump()  # forgets what it has seen so far
    with keep_random_state(), torch.no_grad():
        seed_everything(seed)
        filmed.set_seed(seed)
        episode = filmed.rollout(MAX_EPISODE_STEPS, policy)
    frames = torch.stack(recorder.obs)
    rate = _steps_per_second(env) / settings.get("action_repeat", 1)
    filmed.close()
    return episode["next", "reward"].sum().item(), frames, max(1, round(rate / recorder.skip))


def write_video(path: Path, frames: Tensor, frames_per_second: int) -> None:
    """Write an mp4 (H.264) that browsers play.

    TorchRL's own writer goes through torchcodec, which needs the FFmpeg libraries of the system;
    imageio-ffmpeg brings its encoder along.

    Args:
        path (Path): the file, replaced in one step.
        frames (Tensor): ``[T, 3, H, W]``, bytes.
        frames_per_second (int): speed.

    Raises:
        SettingError: if the encoder is not installed.
    """
    require_encoder()
    import imageio_ffmpeg

    height, width = frames.shape[-2:]
    unfinished = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    writer = imageio_ffmpeg.write_frames(
        str(unfinished), (width, height), fps=frames_per_second, macro_block_size=2
    )
    writer.send(None)
    for frame in frames.permute(0, 2, 3, 1).contiguous():
        writer.send(frame.numpy())
    writer.close()
    os.replace(unfinished, path)


def require_encoder() -> None:
    """Raise a :class:`SettingError` now rather than after the episode was played."""
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        raise SettingError("a video needs a missing package: pip install 'mpo_torchrl[video]'.")


def _steps_per_second(env: EnvBase) -> float:
    """The speed at which the environment says that it is to be shown."""
    metadata = getattr(env, "metadata", None) or {}  # Gymnasium
    if metadata.get("render_fps"):
        return metadata["render_fps"]
    timestep = getattr(env, "control_timestep", None)  # dm_control
    return 1 / timestep() if timestep else 30
