from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import mpo_torchrl

ROOT = Path(__file__).parents[1]


def copy_of_the_source(folder: Path) -> Path:
    # Setuptools leaves build/ behind, which would end up in later wheels.
    source = folder / "mpo_torchrl"
    unwanted = [".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "outputs", "_build"]
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*unwanted))
    return source


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = copy_of_the_source(tmp_path_factory.mktemp("source"))
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


LEFT_BEHIND = [
    "benchmarks/results.json",
    "docs/_build/html/index.html",
    "notebooks/.ipynb_checkpoints/01_quickstart-checkpoint.ipynb",
    "notebooks/MUJOCO_LOG.TXT",
    "notebooks/runs/Pendulum-v1-42/progress.csv",
    "tests/__pycache__/test_package.cpython-311.pyc",
]


def test_sdist_holds_what_make_and_the_readme_need(tmp_path: Path) -> None:
    source = copy_of_the_source(tmp_path)
    needed = {"README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "MANIFEST.in"}
    needed |= {"constraints.txt", "pyproject.toml", "setup.cfg"}
    for folder in ("benchmarks", "docs", "mpo_torchrl", "notebooks", "recipes", "tests"):
        files = (path for path in (source / folder).rglob("*") if path.is_file())
        needed |= {path.relative_to(source).as_posix() for path in files}
    for name in LEFT_BEHIND:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).touch()
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], check=True, cwd=source, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        files = (member.name.partition("/")[2] for member in archive if member.isfile())
        names = {name for name in files if not name.startswith("mpo_torchrl.egg-info/")}
    assert names - {"PKG-INFO"} == needed - set(LEFT_BEHIND)


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_clean_leaves_no_cache_behind(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"  # of a name with a space
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    for name in ("__pycache__", "tests/loss/__pycache__", ".benchmarks", ".pytest_cache", "runs"):
        (folder / name).mkdir(parents=True)
    subprocess.run(["make", "--silent", "clean"], check=True, cwd=folder)
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    assert left == {"Makefile", "tests", "tests/loss", "runs"}


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
