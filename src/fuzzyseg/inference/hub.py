"""Download and upload of model folders on the Hugging Face hub."""

import re
from pathlib import Path

from huggingface_hub import HfApi, constants, errors, snapshot_download

from fuzzyseg.data import DataError
from fuzzyseg.inference.model_card import CARD_NAME, model_folder
from fuzzyseg.networks.weights import hub_or_cache

FILES = [CARD_NAME, "README.md", "config.json", "model.safetensors", "model.safetensors.sha256"]
"""Files that are uploaded and downloaded: text and safetensors, no executable code."""


def is_hub_name(source: str) -> bool:
    """Return whether `source` is a hub name: `user/name`, unless a folder `user` exists (a mistyped path)."""
    path = Path(source)
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source) is not None and not path.parent.exists()


def download(name: str) -> Path:
    """Download a model from the hub, or find it in the cache, and return its folder. Raises DataError on failure."""
    try:
        with hub_or_cache():
            return Path(snapshot_download(name, allow_patterns=FILES))
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, OSError, errors.HFValidationError) as error:
        raise DataError(_failure(name, error)) from None


def upload(folder: Path, name: str, *, private: bool = False) -> str:
    """Upload a model folder to the hub repository `name`, creating it if necessary. Returns its URL.

    Credentials come from `hf auth login` or HF_TOKEN. Raises DataError if there is no model, the name is invalid, or
    the hub refuses or cannot be reached.
    """
    model = model_folder(folder)
    if model is None:
        raise DataError(f"{folder}: found no {CARD_NAME}; expected a run folder or its model/ or best/ folder")
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) is None:
        raise DataError(f"found the name {name!r}; expected USER/NAME")
    try:
        with hub_or_cache():
            api = HfApi()
            address = api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=model, allow_patterns=FILES, commit_message="Upload a model")
    except (errors.OfflineModeIsEnabled, OSError, errors.HFValidationError) as error:
        raise DataError(_failure(name, error, uploads=True)) from None
    return str(address)


def _failure(name: str, error: Exception, *, uploads: bool = False) -> str:
    where = constants.ENDPOINT
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{name}: no such path, and no such model at {where}; for a private model, run `hf auth login` first"
    if isinstance(error, errors.HfHubHTTPError):
        reason = " ".join(str(error).split())[:200]
        return f"{name}: {where} refused ({reason}); log in with `hf auth login`"
    if uploads:
        return f"{name}: the hub ({where}) cannot be reached; upload the model folder later, or copy it another way"
    return (
        f"{name}: no such path, and the hub ({where}) cannot be reached; copy the model folder another way and give "
        "its path"
    )
