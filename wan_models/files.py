"""Finding files below a folder: through links, whatever the case of their endings, without hidden ones."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path


def is_hidden(path: str | Path) -> bool:
    """Whether a part of a (relative) path begins with a dot: caches, version control, what macOS leaves behind."""
    return any(part.startswith(".") and part not in (".", "..") for part in Path(path).parts)


def walk_files(
    root: str | Path, endings: Collection[str] = (), names: Collection[str] = ()
) -> Iterator[Path]:
    """The files below a folder, sorted, that have one of the endings (lower case, with their dot) or names.

    Linked folders are entered, each only once; links to nowhere and hidden names are left out."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back into what was seen
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(folder, name)
            fits = name in names or path.suffix.lower() in endings
            if fits and not name.startswith(".") and path.is_file():
                yield path


def visible_files(folder: Path) -> list[Path]:
    """The files in one folder, sorted, without hidden ones and links to nowhere."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())
