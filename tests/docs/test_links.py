"""Every link from one file of the repository to another leads somewhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT, pages, without_blocks

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def targets(page: str) -> list[str]:
    found = LINK.findall(without_blocks(page))
    return [target for target in found if not re.match(r"https?:|mailto:", target)]


def text_of(file: Path) -> str:
    """A page with what it includes."""
    text = file.read_text()
    included = re.findall(r"^`{3}\{include\} (\S+)$", text, re.MULTILINE)
    return "\n".join([text, *[text_of(file.parent / name) for name in included]])


def anchors(text: str) -> set[str]:
    """The headings of a page as links name them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", h)) for h in headings]
    return {heading.strip().lower().replace(" ", "-") for heading in words}


@pytest.mark.parametrize("page", [page for page in pages() if targets(page)])
def test_links_lead_somewhere(page: str) -> None:
    for target in targets(page):
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(text_of(file)), f"{page}: {target}"


def test_anchors_are_those_of_headings() -> None:
    text = "# Stop, kill, continue\n\n## The `e_step` part: [see](x.md)\n"
    assert anchors(text) == {"stop-kill-continue", "the-e_step-part-see"}


def test_links_between_pages_are_found() -> None:
    assert {"installation.md", "results/index.md"} <= set(targets("docs/index.md"))


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
