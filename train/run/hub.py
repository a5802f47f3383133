"""A trained model on the hub: uploaded when asked for, and only what loading it takes."""

from __future__ import annotations

from pathlib import Path

from ...shared.errors import SettingsError, StorageError, first_line
from ...shared.models.locate import HUB_PATTERNS
from .output_folder import CHECKPOINTS, METRICS

UPLOADED = [*HUB_PATTERNS, "README.md"]
KEPT_HERE = [f"{CHECKPOINTS}/*", METRICS]  # metrics.json says where things are on this machine


def refuse_no_repository(repository: str) -> None:
    """Raise SettingsError where a name can be no repository's, before anything is trained."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise SettingsError(str(error), where=f"--push-to-hub {repository}", fix="give ORGANISATION/NAME") from error


def push(out: Path, repository: str, *, private: bool) -> str:
    """Upload the model and its card.

    Args:
        out: Folder of a trained model.
        repository: Hub id; made where there is none.
        private: Whether a new repository is private.

    Returns:
        The URL of the commit.

    Raises:
        StorageError: The hub cannot be reached or refuses; or the repository is public and was asked to be private.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import httpx

    api, again = HfApi(), "then run the same command again: it only uploads"
    try:
        repository = api.create_repo(repository, private=private or None, exist_ok=True).repo_id
        if private and not api.model_info(repository).private:
            raise StorageError(
                "The repository is there already, and public",
                where=f"--hub-private --push-to-hub {repository}",
                fix=f"make it private or leave --hub-private out, {again}",
            )
        uploaded = api.upload_folder(
            repo_id=repository,
            folder_path=out,
            allow_patterns=UPLOADED,
            ignore_patterns=KEPT_HERE,
            commit_message="Model trained by gistcache",
        )
    except (httpx.HTTPError, OSError) as error:
        raise StorageError(
            f"The model is whole in {out}, but the hub has not taken it",
            where=f"{repository}: {first_line(error)}",
            fix=f"check the network and `hf auth login`, {again}",
        ) from error
    return uploaded.commit_url
