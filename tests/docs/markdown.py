"""Every Markdown page of the repository, and the fenced blocks in it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(
    r"^(?P<indent> *)(?P<mark>`{3,}|~{3,}|:{3,})(?P<info>[^\n]*)\n"
    r"(?P<code>.*?)^(?P=indent)(?P=mark) *$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: what it says it is, what it holds, and where."""

    page: str
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def touches(self, following: Block) -> bool:
        """Whether nothing but a blank line stands between this block and the next one."""
        end = self.line + self.code.count("\n") + 1
        return following.line <= end + 2


def pages() -> list[str]:
    """The tracked Markdown files, from the root; all there are where there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        return sorted(name for name in listed.stdout.splitlines() if (ROOT / name).exists())
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*.md"))
    return sorted(str(path) for path in found if not path.parts[0].startswith(".venv"))


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return blocks_of(page, (ROOT / page).read_text())


def blocks_of(page: str, text: str) -> list[Block]:
    """The fenced blocks of a text, in order."""
    found = []
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        lines = match["code"].splitlines(keepends=True)
        code = "".join(row.removeprefix(match["indent"]) for row in lines)
        found.append(Block(page, line, match["info"].strip().split(" ")[0], code))
    return found


def without_blocks(page: str) -> str:
    """The prose of a page."""
    return _FENCE.sub("", (ROOT / page).read_text())


BLOCKS = [block for page in pages() for block in blocks(page)]


def of(*languages: str) -> list[Block]:
    """The blocks of these languages on every page."""
    return [block for block in BLOCKS if block.language in languages]
