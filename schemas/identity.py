"""Identity of what lies in files: a model's hub id and revision, or hashes over local content."""

import hashlib
from pathlib import Path

from schemas.errors import RequestError
from schemas.section import ModelRef


def model_identity(ref: ModelRef) -> str:
    """`org/name@revision` for a hub model, `folder:<sha256>` for a local one, `file:<sha256>` for a local file.

    The folder's hash covers relative names and bytes, so a retrained model in the same place is a different model,
    and the same model in another place is the same.

    Raises:
        RequestError: `ref.model` looks like a path and is not there.
    """
    path = Path(ref.model)
    if path.is_dir():
        return f"folder:{folder_hash(path)}"
    if path.is_file():
        return f"file:{file_sha256(path)}"
    if path.is_absolute() or ref.model.startswith(("./", "../", "~")):
        raise RequestError(
            f"The model folder {ref.model} does not exist. Give an existing folder or a hub id (org/name)."
        )
    return f"{ref.model}@{ref.revision or 'main'}"


def folder_hash(folder: Path) -> str:
    """sha256 over the sorted relative names and contents of a folder's files."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(f"{path.relative_to(folder).as_posix()}\0{file_sha256(path)}\n".encode())
    return total.hexdigest()


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's content, read in blocks."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
