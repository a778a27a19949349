"""Fills in what the registry is told of who publishes: the publisher's id, and the addresses of the repository.

    python tools/registry.py <publisher> <https://github.com/owner/repository>

.github/workflows/publish.yml runs it on its own copy; in the repository these stay open.
"""

import re
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
_PUBLISHER = re.compile(r"[a-z][a-z0-9_-]*")
_REPOSITORY = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+)")


def fill_in(text: str, publisher: str, repository: str) -> str:
    """The text of a pyproject.toml with what `publisher` and `repository` make of it. ValueError where one is wrong."""
    if not _PUBLISHER.fullmatch(publisher):
        raise ValueError(f"a publisher's id is small letters, digits, - and _, not {publisher!r}")
    match = _REPOSITORY.fullmatch(repository)
    if match is None:
        raise ValueError(
            f"the repository is an address such as https://github.com/owner/name, not {repository!r}"
        )
    pictures = f"https://raw.githubusercontent.com/{match[1]}/main/docs"
    values = {"PublisherId": publisher, "Icon": f"{pictures}/icon.svg", "Banner": f"{pictures}/banner.svg"}
    for key, value in values.items():
        text, count = re.subn(rf'^{key} = ""$', f'{key} = "{value}"', text, flags=re.MULTILINE)
        if count != 1:
            raise ValueError(f'pyproject.toml has {count} lines {key} = "", not one')
    addresses = {
        "Repository": repository,
        "Documentation": f"{repository}/tree/main/docs",
        "Issues": f"{repository}/issues",
    }
    lines = "".join(f'{key} = "{value}"\n' for key, value in addresses.items())
    return f"{text.rstrip()}\n\n[project.urls]\n{lines}"


def main() -> None:
    publisher, repository = sys.argv[1:]
    PROJECT.write_text(fill_in(PROJECT.read_text(encoding="utf-8"), publisher, repository), encoding="utf-8")


if __name__ == "__main__":
    main()
