"""What the pages show is true: Python runs, commands would, diffs are those of recipes."""

from __future__ import annotations

import ast
import doctest
import functools
import io
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.config_store import ConfigStore

from mpo_torchrl.trainer import MPOConfig, MPOTrainer, VMPOConfig
from tests.docs.commands import CommandError, check, commands
from tests.docs.markdown import BLOCKS, ROOT, Block, blocks, blocks_of, of, pages

CODE = {"python", "bash", "diff", "bibtex", "yaml"}
PROSE = {"text"}  # a drawing, or what the Python block before it prints: compared there
DIRECTIVE = re.compile(r"\{[a-z-]+\}")  # Sphinx has them, or the build of the site fails
SMALL = {
    "total_timesteps": 60,
    "learning_starts": 20,
    "hidden": 16,
    "batch_size": 16,
    "steps_per_batch": 10,
    "eval_every": 30,
    "eval_episodes": 1,
    "checkpoint_every": 30,
}


def test_there_are_pages_with_code() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/quickstart.md"} <= set(pages())
    assert len(of("python")) > 10 and len(of("bash")) > 10


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_is_of_a_kind_that_is_checked(block: Block) -> None:
    known = block.language in CODE | PROSE or DIRECTIVE.fullmatch(block.language)
    assert known, f"{block} is {block.language!r}: nothing checks it"


# -- Python: a page is one program --------------------------------------------------------


@pytest.fixture
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages show settings that learn; here they are checked, then run a few steps."""
    for config_class in (MPOConfig, VMPOConfig):
        monkeypatch.setattr(config_class, "__post_init__", _shrinking(config_class.__post_init__))
    train = MPOTrainer.train

    def few_steps(self: MPOTrainer, total_timesteps: int | None = None) -> dict[str, Any]:
        capped = None if total_timesteps is None else min(total_timesteps, 60)
        return train(self, capped)

    monkeypatch.setattr(MPOTrainer, "train", few_steps)


def _shrinking(check: Any) -> Any:
    @functools.wraps(check)
    def checked_then_small(config: Any) -> None:
        check(config)
        for name, value in SMALL.items():
            if hasattr(config, name):
                setattr(config, name, min(getattr(config, name), value))
        config.progress_bar = False

    return checked_then_small


def _programs() -> list[str]:
    return [page for page in pages() if any(b.language == "python" for b in blocks(page))]


@pytest.mark.usefixtures("small_runs")
@pytest.mark.parametrize("page", _programs())
def test_python_runs_and_prints_what_the_page_says(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(blocks(page))


def run_page(page: list[Block]) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block, following in zip(page, [*page[1:], None], strict=True):
        if block.language != "python":
            continue
        printed = io.StringIO()
        with redirect_stdout(printed):
            source = "\n" * block.line + block.code  # so that a traceback names the line
            exec(compile(source, block.page, "exec"), namespace)
        if following is not None and following.language == "text" and block.touches(following):
            options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            same = doctest.OutputChecker().check_output(following.code, printed.getvalue(), options)
            assert same, f"{block} prints:\n{printed.getvalue()}"


def test_an_output_that_is_not_printed_is_found() -> None:
    page = blocks_of("page.md", "```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n")
    with pytest.raises(AssertionError, match="page.md:1 prints"):
        run_page(page)


# -- commands -----------------------------------------------------------------------------


@pytest.fixture
def workplace(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the files that the page shows, as their first lines name them."""
    for shown in blocks(block.page):
        if shown.language == "yaml":
            path = tmp_path / shown.code.partition("\n")[0].removeprefix("# ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(shown.code)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("workplace", "capsys")
@pytest.mark.parametrize("block", of("bash"), ids=str)
def test_commands_would_be_understood(block: Block) -> None:
    found = list(commands(block.code))
    assert found
    for command in found:
        check(command)


def test_packages_are_installed_from_the_checkout() -> None:
    # Where nothing is installed yet, pip would look for the name on its index.
    pip = [c for block in of("bash") for c in commands(block.code) if c[:2] == ["pip", "install"]]
    assert pip
    assert [c for c in pip if any(word.startswith("mpo_torchrl") for word in c)] == []


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_pages_that_begin_with_make_say_where_python_is(page: str) -> None:
    # The commands that follow need the packages that make has installed.
    assert "source .venv/bin/activate" in (ROOT / page).read_text()


@pytest.mark.usefixtures("capsys")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("make trian", "no target 'trian'"),
        ('make train ARGS="lerning_rate=1"', "mpo.py refuses lerning_rate=1"),
        ("python recipes/mpo.py gamma=2", "mpo.py refuses gamma=2"),
        ("python recipes/mpo.py --config-name nothing", "mpo.py refuses"),
        ("python recipes/mpi.py", "are not in the repository"),
        ("pip install 'mpo_torchrl[nothing]'", "no extras"),
        ("rm -rf /", "'rm' is not among the programs"),
    ],
)
def test_a_command_that_would_fail_is_found(line: str, message: str) -> None:
    (command,) = commands(line)
    with pytest.raises(CommandError, match=re.escape(message)):
        check(command)


# -- what is shown of files -----------------------------------------------------------------


def _recipe_lines() -> Iterator[str]:
    for path in (ROOT / "recipes").glob("*.py"):
        source = path.read_text()
        yield from map(str.strip, source.splitlines())
        for statement in ast.walk(ast.parse(source)):
            if isinstance(statement, ast.ImportFrom):
                for alias in statement.names:
                    yield f"from {statement.module} import {alias.name}"


def _in_hydra(line: str) -> bool:
    """Whether TorchRL's configurations have what a line of ``defaults`` asks for."""
    match = re.fullmatch(r"- (\w+)@\w+: (\w+)", line)
    groups = ConfigStore.instance().repo
    return match is not None and f"{match[2]}.yaml" in groups.get(match[1], {})


@pytest.mark.parametrize("block", of("diff"), ids=str)
def test_both_sides_of_a_diff_exist(block: Block) -> None:
    import torchrl.trainers.algorithms.configs  # noqa: F401  fills Hydra's store

    lines = [line[1:].strip() for line in block.code.splitlines() if line.strip("+- ")]
    known = set(_recipe_lines())
    missing = [line for line in lines if line not in known and not _in_hydra(line)]
    assert lines and not missing


@pytest.mark.parametrize("block", of("bibtex"), ids=str)
def test_an_entry_can_be_cited(block: Block) -> None:
    assert re.match(r"@\w+\{\w+,\n", block.code)
    assert block.code.count("{") == block.code.count("}")
    for field in ("title", "author", "year"):
        assert re.search(rf"^  {field}={{.+}},?$", block.code, re.MULTILINE)


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_yaml_has_settings_that_exist(block: Block) -> None:
    settings = yaml.safe_load(block.code)
    assert settings.pop("defaults") == ["mpo", "_self_"]
    MPOConfig.from_mapping(settings)


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
