"""Executes notebooks from a clean kernel and keeps their outputs.

    python notebooks/execute.py                    # all of them
    python notebooks/execute.py 01_quickstart 04_family

The kernel runs this very interpreter on this very source, whatever kernels are installed. A digest
of the code that gave the outputs is kept beside them, so that a test finds outputs of older code.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parent
TIMEOUT_SECONDS = 3 * 3600  # of one cell: a shared machine may be slow


class ThisInterpreter(AsyncKernelManager):
    """Starts kernels of the interpreter that it runs in."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """The way to start one."""
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")


def execute(
    notebook: NotebookNode, parameters: dict[str, Any] | None = None, probe: str = ""
) -> NotebookNode:
    """Runs all cells from top to bottom in a new kernel, and keeps their outputs in them.

    Args:
        notebook (NotebookNode): changed in place.
        parameters (dict, optional): other values for what the cell tagged ``parameters`` sets; a
            cell after it assigns them.
        probe (str): code of one more cell at the end.

    Raises:
        CellExecutionError: if a cell fails.
        KeyError: if the notebook does not set one of the parameters.
    """
    if parameters:
        index, cell = _parameter_cell(notebook)
        unknown = [name for name in parameters if f"\n{name} = " not in f"\n{cell.source}"]
        if unknown:
            raise KeyError(f"the notebook has no parameters {unknown}.")
        source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        notebook.cells.insert(index + 1, nbformat.v4.new_code_cell(source))
    if probe:
        notebook.cells.append(nbformat.v4.new_code_cell(probe))
    with tempfile.TemporaryDirectory() as settings:
        client = NotebookClient(
            notebook,
            kernel_manager_class=ThisInterpreter,
            timeout=TIMEOUT_SECONDS,
            record_timing=False,
            resources={"metadata": {"path": str(FOLDER)}},
        )
        client.execute(env=_environment(settings))
    return notebook


def source_sha256(notebook: NotebookNode) -> str:
    """A digest of all code, in its order."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def _parameter_cell(notebook: NotebookNode) -> tuple[int, NotebookNode]:
    for index, cell in enumerate(notebook.cells):
        if "parameters" in cell.metadata.get("tags", []):
            return index, cell
    raise KeyError("no cell is tagged 'parameters'.")


def _environment(settings: str) -> dict[str, str]:
    """Of this process, without anybody's own settings of IPython and matplotlib."""
    own = {"PYTHONPATH": str(FOLDER.parent), "IPYTHONDIR": settings, "MPLCONFIGDIR": settings}
    return {**os.environ, **own}


def main(names: list[str]) -> None:
    """Executes the notebooks in the folder, or those that are named, and writes them back."""
    paths = [FOLDER / f"{name}.ipynb" for name in names] or sorted(FOLDER.glob("*.ipynb"))
    for path in paths:
        notebook = execute(nbformat.read(path, as_version=4))
        notebook.metadata["source_sha256"] = source_sha256(notebook)
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main(sys.argv[1:])
