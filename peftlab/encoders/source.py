"""Find an encoder's files: a local folder, a package, or the hub, with an announced stand-in where the hub is away."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from peftlab.encoders.bundled import BUNDLED
from peftlab.errors import EncoderError, MissingPackage
from peftlab.recipe.records import Encoder

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_HUB_FILES = [
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "spiece.model",
]
_HUB_FILES += [
    "sentencepiece*",
    "special_tokens_map.json",
    "added_tokens.json",
    "modules.json",
    "1_Pooling/config.json",
]


@dataclass(frozen=True)
class EncoderFiles:
    """The files of the encoder that a run uses.

    `requested` and `used` are names as a recipe gives them; they differ only when the stand-in is used, and `reason`
    then says why. `sha256` covers configuration and weights. `revision` is the commit on the hub, where known.
    """

    requested: str
    used: str
    kind: Literal["hub", "local", "bundled"]
    folder: Path
    sha256: str
    revision: str | None = None
    reason: str | None = None

    @property
    def license(self) -> str | None:
        """Return the licence that the encoder's own model card states in its front matter."""
        card = self.folder / "README.md"
        if not card.is_file():
            return None
        lines = card.read_text(encoding="utf-8", errors="replace").splitlines()[:60]
        found = [line.partition(":")[2].strip() for line in lines if line.startswith("license:")]
        return found[0] if found and found[0] else None

    @property
    def is_stand_in(self) -> bool:
        """Say whether another encoder than the one asked for is used."""
        return self.requested != self.used


class _UnreachableError(Exception):
    """The hub gives no answer and the encoder is not in its local cache."""


def find_encoder(encoder: Encoder, *, beside: Path) -> EncoderFiles:
    """Return the files of `encoder`; a relative folder is looked for in `beside` (the recipe's folder), then here.

    Raises EncoderError in one sentence where the encoder cannot be had and the recipe names no stand-in, and
    MissingPackage for a bundled encoder whose package is absent.
    """
    try:
        return _find(encoder.name, encoder.name, encoder.revision, beside)
    except _UnreachableError as error:
        if encoder.stand_in is None:
            raise EncoderError(
                f"encoder.name {encoder.name!r} is not a local folder, is not in the hub's local cache, and the hub "
                f"cannot be reached ({error}); connect, give a folder, or name an `encoder.stand_in` such as "
                f"'bundled:{next(iter(BUNDLED))}'"
            ) from error
        reason = str(error)
    try:
        return _find(encoder.name, encoder.stand_in, None, beside, reason)
    except _UnreachableError as error:
        raise EncoderError(
            f"neither encoder.name {encoder.name!r} nor encoder.stand_in {encoder.stand_in!r} can be reached ({error})"
        ) from error


def find_again(used: str, revision: str | None, sha256: str, folder: Path) -> EncoderFiles:
    """Return the encoder that a run used; EncoderError where its weights are no longer those the run was trained on.

    `folder` is where the run found it, looked at first for a local encoder.
    """
    name = str(folder) if not used.startswith("bundled:") and folder.is_dir() else used
    try:
        files = _find(used, name, revision, Path())
    except _UnreachableError as error:
        raise EncoderError(
            f"the run's encoder {used!r} cannot be reached ({error}); connect, or put its folder back"
        ) from error
    if files.sha256 != sha256:
        raise EncoderError(
            f"the encoder {used!r} in {files.folder} is not the one that the run was trained on "
            f"(SHA-256 {files.sha256[:12]}, expected {sha256[:12]}); restore the former files or train again"
        )
    return EncoderFiles(used, used, files.kind, files.folder, files.sha256, files.revision)


def _find(requested: str, name: str, revision: str | None, beside: Path, reason: str | None = None) -> EncoderFiles:
    if name.startswith("bundled:"):
        return EncoderFiles(requested, name, "bundled", *_hashed(_bundled(name)), reason=reason)
    local = _local(name, beside)
    if local is not None:
        return EncoderFiles(requested, name, "local", *_hashed(local), reason=reason)
    folder, commit = _from_hub(name, revision)
    return EncoderFiles(requested, name, "hub", *_hashed(folder), commit, reason)


def _hashed(folder: Path) -> tuple[Path, str]:
    digest = hashlib.sha256()
    weights = [path for path in sorted(folder.iterdir()) if path.suffix == ".safetensors"]
    weights = weights or [path for path in sorted(folder.iterdir()) if path.name.startswith("pytorch_model")]
    for path in [folder / "config.json", *weights]:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return folder, digest.hexdigest()


def _bundled(name: str) -> Path:
    short = name.removeprefix("bundled:")
    if short not in BUNDLED:
        close = difflib.get_close_matches(short, BUNDLED, n=1)
        hint = f"did you mean 'bundled:{close[0]}'? " if close else ""
        raise EncoderError(
            f"{name!r} is no bundled encoder; {hint}there are: {', '.join(f'bundled:{known}' for known in BUNDLED)}"
        )
    folder = BUNDLED[short].path()
    if folder is None:
        raise MissingPackage(
            f"the encoder {name!r} comes in a package that is not installed; run: {BUNDLED[short].install}"
        )
    return folder


def _local(name: str, beside: Path) -> Path | None:
    given = Path(name).expanduser()
    places = [given] if given.is_absolute() else [beside / given, given]
    folder = next((place.resolve() for place in places if place.is_dir()), None)
    if folder is None:
        if given.is_absolute() or name.startswith((".", "~")):
            raise EncoderError(
                f"the encoder folder {name!r} does not exist; looked in {' and '.join(map(str, places))}"
            )
        return None
    if not (folder / "config.json").is_file():
        raise EncoderError(
            f"the encoder folder {folder} has no config.json; expected a folder as `save_pretrained` writes it"
        )
    if not any((folder / file).is_file() for file in WEIGHTS):
        raise EncoderError(f"the encoder folder {folder} has no weights; expected one of {', '.join(WEIGHTS)}")
    return folder


def _from_hub(name: str, revision: str | None) -> tuple[Path, str | None]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_HUB_FILES))
        if not any((folder / file).is_file() for file in WEIGHTS):
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*_HUB_FILES, "pytorch_model*"]))
    except HFValidationError as error:
        raise EncoderError(f"{name!r} is neither a folder nor a hub id (OWNER/NAME): {error}") from error
    except GatedRepoError as error:
        raise EncoderError(
            f"the hub encoder {name!r} asks for consent; accept its terms on its page, then run `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise EncoderError(
            f"the hub has no encoder {name!r}, or it is private; check the spelling or run `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise EncoderError(f"the hub encoder {name!r} has no revision {revision!r}") from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise _UnreachableError(type(error.__cause__ or error).__name__) from error
    if not any((folder / file).is_file() for file in WEIGHTS):
        raise _UnreachableError("only part of it is in the local cache")
    return folder, folder.name if len(folder.name) == 40 else None
