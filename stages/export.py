"""A finished dataset goes out: to another folder, or to the Hugging Face Hub."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from schemas.errors import IncompleteRunError, RequestError
from schemas.identity import file_sha256
from schemas.section import Section, runtime
from stages.card import CardSection
from stages.dataset import (
    MANIFEST,
    DatasetFile,
    DatasetFolder,
    Manifest,
    check_dataset,
    has_content,
    read_manifest,
)

if TYPE_CHECKING:
    from huggingface_hub.hf_api import HfApi, RepoFile


class ExportSection(Section):
    """The dataset folder's card, and how it goes to the Hub."""

    card: CardSection = Field(CardSection(), description="what the dataset card says beyond the run's own figures")
    private: bool = runtime(True, description="create the Hub repository as private; an existing one is left as it is")
    endpoint: str | None = runtime(None, description="base URL of the Hub; null is huggingface.co (or HF_ENDPOINT)")
    files_per_commit: int = runtime(
        50,
        ge=1,
        le=100,
        description="files in one Hub commit; the Hub advises at most 100, and allows 128 commits an hour",
    )


def export_folder(dataset: Path, destination: Path) -> Manifest:
    """Copy a finished dataset to another folder; what is there already with the right bytes stays.

    Raises:
        RequestError: there is no finished dataset, it is damaged, or `destination` holds something else.
    """
    manifest = read_manifest(dataset)
    _refuse_damaged(dataset, check_dataset(dataset))
    folder = DatasetFolder(destination)
    for file in manifest.files:
        folder.add(file, partial(shutil.copyfile, dataset / file.path))
    return folder.finish()


@dataclass(frozen=True)
class HubExport:
    """What an export to the Hub did: where it is now, and what it cost."""

    url: str
    revision: str
    uploaded: int
    skipped: int
    deleted: int
    commits: int


def export_hub(
    dataset: Path,
    repo_id: str,
    config: ExportSection | None = None,
    *,
    token: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> HubExport:
    """Publish a finished dataset as the Hub dataset `repo_id` (`org/name`), on its main branch.

    Tars go up in few large commits, each on top of the one before, so that two exports cannot mix; index, card and
    manifest follow in the last, which also deletes tars that the dataset no longer has. Between the first and the last
    commit of a changed dataset its readers see old and new tars. What the Hub holds with the right hash is skipped, so
    repeating the call after a failure goes on where it stopped. In the end the Hub's own list of hashes is compared.

    Args:
        dataset: a folder that `assemble_dataset` made.
        token: Hub token; None takes `HF_TOKEN` or the saved login.
        progress: called with (files present on the Hub, files in all) after every commit.

    Raises:
        RequestError: no finished or a damaged dataset, a wrong name, or no permission.
        IncompleteRunError: the Hub or the network failed; repeat the call.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    config = config or ExportSection()
    manifest = read_manifest(dataset)
    _refuse_damaged(dataset, check_dataset(dataset, deep=False))
    closing = dataset / MANIFEST
    files = [*manifest.files, DatasetFile(MANIFEST, closing.stat().st_size, file_sha256(closing))]
    api = HfApi(endpoint=config.endpoint, token=token, library_name="densefusion")
    where = f"{repo_id} at {api.endpoint}"
    with _hub_errors(where):
        url = api.create_repo(repo_id, repo_type="dataset", private=config.private, exist_ok=True)
        revision = api.repo_info(repo_id, repo_type="dataset").sha or ""
        remote = _remote_files(api, repo_id)
    missing = [f for f in files if not _is_remote(dataset, f, remote)]
    stale = sorted(
        p for p in remote if p.startswith("data/") and p.endswith(".tar") and p not in {f.path for f in files}
    )
    tars = [f for f in missing if f.rows]
    last = [f for f in missing if not f.rows]
    size = config.files_per_commit
    plan = [tars[start : start + size] for start in range(0, len(tars), size)]
    if last or stale:
        plan.append(last)
    done = len(files) - len(missing)
    for number, batch in enumerate(plan, 1):
        progress(done, len(files))
        changed = [f.path for f in batch if not has_content(dataset / f.path, f)]
        _refuse_damaged(dataset, [f"{path} has other content than the manifest says." for path in changed])
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(f.path, dataset / f.path) for f in batch
        ]
        if number == len(plan):
            operations += [CommitOperationDelete(path) for path in stale]
        with _hub_errors(where, f"{done} of {len(files)} files are there"):
            revision = api.create_commit(
                repo_id,
                operations,
                repo_type="dataset",
                commit_message=f"Dataset of {manifest.rows} samples, part {number} of {len(plan)}",
                parent_commit=revision or None,
            ).oid
        done += len(batch)
    progress(done, len(files))
    with _hub_errors(where, "everything was uploaded, but not compared"):
        remote = _remote_files(api, repo_id)
    if wrong := [f.path for f in files if not _is_remote(dataset, f, remote)]:
        raise IncompleteRunError(
            f"After the upload to {repo_id} the Hub does not list these files with the right hash: {', '.join(wrong)}. "
            "Repeat the export; it uploads only what differs."
        )
    return HubExport(str(url), revision, len(missing), len(files) - len(missing), len(stale), len(plan))


def _remote_files(api: "HfApi", repo_id: str) -> dict[str, "RepoFile"]:
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(repo_id, recursive=True, repo_type="dataset")
    return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}


def _is_remote(dataset: Path, file: DatasetFile, remote: dict[str, "RepoFile"]) -> bool:
    """Whether the Hub holds the file: by sha256 where it is in large-file storage, else by git's blob hash."""
    entry = remote.get(file.path)
    if entry is None or entry.size != file.bytes:
        return False
    if entry.lfs is not None:
        return entry.lfs.sha256 == file.sha256
    content = (dataset / file.path).read_bytes()
    return entry.blob_id == hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()


@contextmanager
def _hub_errors(where: str, progress: str = "nothing was uploaded") -> Iterator[None]:
    """Say in one paragraph what the Hub's client raises in many ways; `where` names the dataset and the Hub."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

    try:
        yield
    except HFValidationError as e:
        raise RequestError(f"That is no name for a Hub dataset: {where}. Give `organisation/name`. ({e})") from e
    except (HTTPError, OSError, RuntimeError, ValueError) as e:
        # The client wraps an upload's own error in a RuntimeError.
        cause = e.__cause__ if isinstance(e, RuntimeError) and e.__cause__ else e
        said, status = " ".join(str(cause).split()), None
        if isinstance(cause, HfHubHTTPError):
            status = cause.response.status_code
            said = f"HTTP {status}, {' '.join((cause.server_message or cause.response.reason_phrase).split())}"
        if status in (401, 403, 404):
            raise RequestError(
                f"The Hub does not let this token write the dataset {where} ({said}). Give a token with write "
                "permission for that organisation in HF_TOKEN, or log in with `hf auth login`."
            ) from e
        if status in (400, 413, 422) or isinstance(cause, ValueError):
            raise RequestError(f"The Hub does not take the dataset {where} ({said}).") from e
        raise IncompleteRunError(
            f"The export to {where} stopped ({said}); {progress}. Repeat the same command: what the Hub holds is not "
            "uploaded again."
        ) from e


def _refuse_damaged(dataset: Path, problems: list[str]) -> None:
    if problems:
        raise RequestError(
            f"The dataset in {dataset} is damaged: {' '.join(problems)} Delete what is damaged and run "
            "`densefusion run` again; where that does not help, `densefusion verify` names the run's damaged objects."
        )
