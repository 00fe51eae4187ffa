from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mpo_torchrl

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Built from a copy: setuptools leaves build/ behind, which would end up in later wheels.
    source = tmp_path_factory.mktemp("source") / "mpo_torchrl"
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs")
    shutil.copytree(ROOT, source, ignore=unwanted)
    target = tmp_path_factory.mktemp("wheel")
    command = "-m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir".split()
    subprocess.run([sys.executable, *command, str(target), str(source)], check=True)
    return next(target.glob("*.whl"))


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    metadata = f"mpo_torchrl-{mpo_torchrl.__version__}.dist-info/"
    package = {name for name in names if not name.startswith(metadata)}
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "mpo_torchrl").rglob("*.py")}
    assert package == modules | {"mpo_torchrl/py.typed"}


def test_wheel_carries_the_licence(wheel: Path) -> None:
    assert any(name.endswith("licenses/LICENSE") for name in zipfile.ZipFile(wheel).namelist())


def test_version_is_the_installed_one() -> None:
    assert mpo_torchrl.__version__ == importlib.metadata.version("mpo_torchrl")


@pytest.mark.parametrize("name", mpo_torchrl.__all__)
def test_public_name_exists(name: str) -> None:
    assert getattr(mpo_torchrl, name) is not None


def test_import_leaves_the_extras_alone() -> None:
    # `pip install mpo_torchrl` brings none of these, so the import may not need them.
    extras = ["hydra", "omegaconf", "tqdm", "matplotlib", "mujoco"]
    code = f"""
import sys
for extra in {extras!r}:
    sys.modules[extra] = None
import mpo_torchrl
"""
    subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
