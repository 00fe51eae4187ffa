"""Settings from the command line: Hydra, with one sentence where a setting is wrong.

Needs Hydra, from the ``recipes`` extra.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import yaml  # type: ignore[import-untyped]
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torchrl import torchrl_logger
from torchrl.checkpoint import CheckpointError

from mpo_torchrl.trainer.collection import NonFiniteError
from mpo_torchrl.trainer.config import MPOConfig
from mpo_torchrl.trainer.settings import SettingError, check_name, describe_settings, valid_range
from mpo_torchrl.trainer.tool import stop

_USAGE = """{program}: {purpose}

  python {program} [setting=value ...]
  python {program} --multirun seed=0,1,2
  python {program} --config-dir FOLDER --config-name NAME   (your own NAME.yaml; its first line:
                                                             defaults: [{name}, _self_])
{presets}
Settings: name, default, meaning [valid]
{settings}

Everything else that Hydra can do: --hydra-help"""

_PRESETS = """
  python {program} --config-name PRESET [setting=value ...]

Presets: what they are after; the files are in {config_dir}
{rows}
"""


def run_from_command_line(
    train: Callable[[Any], Mapping[str, Any]],
    config_dir: Path,
    purpose: str,
    config_class: type = MPOConfig,
) -> None:
    """Call ``train`` with the settings of the command line; print ``mean_reward`` last.

    A wrong setting ends the program with one sentence on stderr and exit code 2, a run that cannot
    go on with one sentence and exit code 1.

    Args:
        train (callable): the recipe.
        config_dir (Path): folder of the YAML files, with ``mpo.yaml`` for :class:`MPOConfig`.
        purpose (str): one sentence for ``--help``.
        config_class (type): the settings of the recipe.
    """
    arguments = sys.argv[1:]
    sys.path.append(os.getcwd())  # where env=module:id is looked for, too
    name = _name_of(config_class)
    if {"-h", "--help"} & set(arguments):
        program = os.path.relpath(sys.argv[0])
        usage = _USAGE.format(
            program=program,
            name=name,
            purpose=purpose,
            presets=_describe_presets(program, config_dir, name),
            settings=describe_settings(config_class),
        )
        print(usage)
        return
    torchrl_logger.setLevel(logging.WARNING)
    for handler in torchrl_logger.handlers:  # TorchRL talks on stdout, which is for results
        if getattr(handler, "stream", None) is sys.stdout:
            handler.setStream(sys.stderr)
    ConfigStore.instance().store(name=f"{name}_settings", node=config_class)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors over instead of printing them

    def job(settings: DictConfig) -> float:
        try:
            metrics = train(_to_config(settings, config_class))
        except SettingError as error:
            stop(error, 2)
        except OmegaConfBaseException as error:
            stop(_translate(error, config_class), 2)
        except (NonFiniteError, CheckpointError, OSError) as error:
            stop(error, 1)
        print(f"mean_reward: {metrics['mean_reward']}", flush=True)
        return metrics["mean_reward"]

    with tempfile.TemporaryDirectory() as scratch, _plain_settings(config_class):
        try:
            _check_names(arguments, config_class)
            sys.argv[1:] = _keep_out_of_sight(arguments, scratch)
            hydra.main(version_base="1.3", config_path=str(config_dir), config_name=name)(job)()
        except SettingError as error:
            stop(error, 2)
        except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
            stop(_translate(error, config_class), 2)


@contextmanager
def _plain_settings(config_class: type) -> Iterator[None]:
    """Let ``env=...`` and ``logger=...`` set values: TorchRL has groups of these names in Hydra."""
    groups = ConfigStore.instance().repo
    names = {field.name for field in dataclasses.fields(config_class)}
    hidden = {name: groups.pop(name) for name in sorted(names & groups.keys())}
    try:
        yield
    finally:
        groups.update(hidden)


def _describe_presets(program: str, config_dir: Path, name: str) -> str:
    """Each YAML file of the folder, with the first sentence of the comment that it begins with."""
    files = sorted(path for path in config_dir.glob("*.yaml") if path.stem != name)
    if not files:
        return ""
    width = max(len(file.stem) for file in files)
    lines = []
    for file in files:
        comment = file.read_text().partition("defaults:")[0].replace("#", "")
        sentence = " ".join(comment.split()).split(". ")[0].rstrip(".")
        lines.append(f"  {file.stem:{width}}  {sentence}")
    return _PRESETS.format(
        program=program, config_dir=os.path.relpath(config_dir), rows="\n".join(lines)
    )


def _to_config(settings: DictConfig, config_class: Any) -> Any:
    values: dict[str, Any] = OmegaConf.to_container(settings, resolve=True)  # type: ignore[assignment]
    if OmegaConf.get_type(settings) != config_class:
        raise SettingError(_first_line(config_class))
    return config_class.from_mapping(values)


def _check_names(arguments: list[str], config_class: type) -> None:
    """Name the nearest setting where Hydra would only say that a key is not in the struct."""
    for argument, following in itertools.pairwise([*arguments, "-"]):
        if argument in _NEED_A_VALUE and (following.startswith("-") or "=" in following):
            raise SettingError(f"{argument} must be followed by a name; --help lists the presets.")
        name, equals, _ = argument.partition("=")
        if equals and not name.startswith(("-", "hydra")):
            check_name(name.lstrip("+~"), config_class)


_NEED_A_VALUE = ("--config-name", "-cn", "--config-path", "-cp", "--config-dir", "-cd")


def _keep_out_of_sight(arguments: list[str], scratch: str) -> list[str]:
    """The arguments, and those that keep Hydra's own files and log lines from the results."""
    quiet = [
        "hydra.output_subdir=null",
        f"hydra.run.dir={scratch}",
        f"hydra.sweep.dir={scratch}",
        "hydra.sweep.subdir=.",
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
    ]
    settings = [a for a in arguments if "=" in a and not a.startswith("-")]
    options = [a for a in arguments if a not in settings]
    return [*options, *quiet, *settings]  # Hydra wants settings side by side


def _translate(error: Exception, config_class: Any) -> str:
    """One sentence for what Hydra, OmegaConf or YAML found; a setting brings its valid range."""
    text = "\n".join(str(cause) for cause in _chain(error))
    unknown = re.search(r"Key '(\w+)' (?:is not in struct|not in)", text)
    if unknown:
        return _unknown_setting(unknown.group(1), config_class)
    lines = [line.strip() for line in str(_chain(error)[-1]).strip().splitlines()]
    reason = next((line for line in lines if not line.endswith("while composing config:")), text)
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    named = re.search(r"full_key: (\w+)", text)
    if named and named.group(1) in fields:
        return f"{named.group(1)} must be {valid_range(fields[named.group(1)])}: {reason}"
    unread = [cause for cause in _chain(error) if isinstance(cause, OverrideParseException)]
    if unread:
        return (
            f"{unread[0].override!r} cannot be read: write setting=value, and a value with other "
            "than plain characters in quotes of its own, \"run_dir='runs/größe'\"."
        )
    if isinstance(error, yaml.YAMLError):
        return f"the YAML file cannot be read: {error}"
    return reason


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what caused it, the root last."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    return causes


def _unknown_setting(name: str, config_class: type) -> str:
    try:
        check_name(name, config_class)
    except SettingError as error:
        return str(error)
    return _first_line(config_class)


def _first_line(config_class: type) -> str:
    name = _name_of(config_class)
    return f"the YAML file must begin with the line 'defaults: [{name}, _self_]'."


def _name_of(config_class: type) -> str:
    """What the settings are called in YAML files: ``mpo`` for ``MPOConfig`` and what extends it."""
    if issubclass(config_class, MPOConfig):
        return "mpo"
    return config_class.__name__.removesuffix("Config").lower()
