"""The site is built from what is there, without a warning and without a network."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from sphinx.util.inventory import InventoryFile

from tests.docs.markdown import ROOT

PACKAGES = ["functional", "critic", "e_step", "dual", "m_step", "loss", "modules", "trainer"]


def test_the_site_is_built_without_a_warning_and_describes_what_is_public(tmp_path: Path) -> None:
    # One test: building it takes most of the time of all tests of the documentation.
    options = ["-q", "-W", "--keep-going", "-n", "-t", "quick", "-d", str(tmp_path / "doctrees")]
    command = [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(tmp_path / "html")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr

    with (tmp_path / "html" / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, uri: uri)
    objects = {name for kind in inventory if kind.startswith("py:") for name in inventory[kind]}
    public = {
        f"mpo_torchrl.{package}.{name}"
        for package in PACKAGES
        for name in importlib.import_module(f"mpo_torchrl.{package}").__all__
    }
    assert public <= objects


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
