"""What hatchling adds to the package's metadata: where the repository is, and a README whose links lead there.

The owner sets the address once, as ``repository`` in pyproject.toml's [tool.hatch.metadata.hooks.custom]. While it is
empty, the metadata has no addresses, and the README stays as it is.
"""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

CODE = re.compile(r"(?ms)(^```.*?^```|`[^`\n]*`)")
INSIDE = re.compile(r"\]\((?!https?:|#|mailto:)([^)\s]+)\)")  # the target of a link inside the repository
PICTURES = (".png", ".svg")


class Metadata(MetadataHookInterface):
    """Sets ``readme`` and ``urls``."""

    def update(self, metadata: dict) -> None:
        repository = self.config["repository"].rstrip("/")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        if repository:
            text = absolute(text, repository)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        metadata["urls"] = addresses(repository) if repository else {}


def addresses(repository: str) -> dict[str, str]:
    """The links beside the package's page."""
    main = f"{repository}/blob/main"
    return {
        "Repository": repository,
        "Documentation": f"{main}/experiments/site/tour.md",
        "Changelog": f"{main}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


def absolute(text: str, repository: str) -> str:
    """The Markdown with every link inside the repository led to its page there, and every picture to its file."""

    def led(match: re.Match) -> str:
        kind = "raw" if match[1].endswith(PICTURES) else "blob"
        return f"]({repository}/{kind}/main/{match[1]})"

    parts = CODE.split(text)  # every second one is code
    return "".join(part if i % 2 else INSIDE.sub(led, part) for i, part in enumerate(parts))
