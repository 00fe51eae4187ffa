"""Text files that others read while they are written."""

from __future__ import annotations

import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Write a file in UTF-8; a reader finds the old one or the new one, never a part.

    Args:
        path (Path): the file; its folder is made if it is missing.
        text (str): what it holds.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "new", "note.txt")
        >>> replace_text(path, "größer")
        >>> path.read_text(encoding="utf-8")
        'größer'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        file.write(text)
    os.replace(unfinished, path)
