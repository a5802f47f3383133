"""Uploading a trained model to the hub: its card, and the files that loading it takes."""

from __future__ import annotations

from pathlib import Path

from ...shared.errors import StorageError, first_line
from ...shared.models.locate import HUB_PATTERNS
from .output_folder import CHECKPOINTS, METRICS

UPLOADED = [*HUB_PATTERNS, "README.md"]
NOT_UPLOADED = [f"{CHECKPOINTS}/*", METRICS]  # metrics.json names folders of this machine


def push(out: Path, repository: str, *, private: bool) -> str:
    """Upload the model and its card.

    Args:
        out: Folder of a trained model.
        repository: Hub id; the repository is made if it does not exist.
        private: Whether a new repository is private.

    Returns:
        The URL of the commit.

    Raises:
        StorageError: The hub cannot be reached or refuses; or the repository is public and should be private.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import httpx

    api, again = HfApi(), "then run the same command again: it only uploads"
    try:
        repository = api.create_repo(repository, private=private or None, exist_ok=True).repo_id
        if private and not api.model_info(repository).private:
            raise StorageError(
                "The repository exists already, and is public",
                where=f"--hub-private --push-to-hub {repository}",
                fix=f"make it private or leave --hub-private out, {again}",
            )
        uploaded = api.upload_folder(
            repo_id=repository,
            folder_path=out,
            allow_patterns=UPLOADED,
            ignore_patterns=NOT_UPLOADED,
            commit_message="Model trained by gistcache",
        )
    except (httpx.HTTPError, OSError) as error:
        raise StorageError(
            f"The model is complete in {out}, but the hub has not accepted it",
            where=f"{repository}: {first_line(error)}",
            fix=f"check the network and `hf auth login`, {again}",
        ) from error
    return uploaded.commit_url
