"""An export uploaded to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from peftlab.errors import UserError


def push_to_hub(folder: Path, repository: str) -> str:
    """Upload every file of the export in `folder` to `repository` (OWNER/NAME) and return its address.

    A repository that does not exist is made, and is private: to publish it is a decision of its owner. Raises
    UserError where the hub refuses or cannot be reached; the export stays where it is.
    """
    from huggingface_hub import HfApi

    hub = HfApi()
    try:
        made = hub.create_repo(repository, private=True, exist_ok=True)
        hub.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="Export by peftlab")
    except Exception as error:
        # What the network library under the hub's client raises is no part of the client's interface.
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the export is in {folder}, but was not uploaded to {repository}: {first}; log in with `hf auth login`, "
            "or check the name"
        ) from error
    return str(made)
