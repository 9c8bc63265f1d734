from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from schemas.errors import IncompleteRunError, RequestError
from stages.dataset import assemble_dataset
from stages.export import ExportSection, HubExport, export_hub
from tests.fakes.hub import TOKEN, FakeHub
from tests.fakes.packaged import packaged, snapshot

REPO = "org/captions"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    # The Hub's chunk store (Xet) cannot be had here; the client then speaks git LFS.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    with FakeHub() as server:
        yield server


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    assemble_dataset(tmp_path / "dataset", packaged(tmp_path, shards=5, rows=2), "---\nlicense: other\n---\n# Card\n")
    return tmp_path / "dataset"


def publish(
    dataset: Path, hub: FakeHub, token: str = TOKEN, progress: Callable[[int, int], None] = lambda done, total: None
) -> HubExport:
    config = ExportSection(endpoint=hub.endpoint, files_per_commit=2)
    return export_hub(dataset, REPO, config, token=token, progress=progress)


def on_hub(hub: FakeHub) -> dict[str, bytes]:
    return {path: content for path, (_, content) in hub.repos[REPO].files.items() if path != ".gitattributes"}


def test_the_hub_holds_the_dataset_in_few_commits(dataset: Path, hub: FakeHub) -> None:
    seen: list[tuple[int, int]] = []
    done = publish(dataset, hub, progress=lambda n, of: seen.append((n, of)))
    assert on_hub(hub) == snapshot(dataset)
    assert hub.repos[REPO].private
    # Five tars in commits of two, then index, card and manifest.
    assert (done.uploaded, done.skipped, done.deleted, done.commits) == (8, 0, 0, 4)
    assert done.revision == hub.repos[REPO].commits[-1]
    assert seen == [(0, 8), (2, 8), (4, 8), (5, 8), (8, 8)]


def test_again_uploads_nothing(dataset: Path, hub: FakeHub) -> None:
    publish(dataset, hub)
    hub.log.clear()
    done = publish(dataset, hub)
    assert (done.uploaded, done.skipped, done.commits) == (0, 8, 0)
    assert hub.count("PUT", "") == hub.count("POST", "/commit/") == 0


def test_a_changed_dataset_uploads_what_changed_and_deletes_what_is_gone(
    dataset: Path, hub: FakeHub, tmp_path: Path
) -> None:
    publish(dataset, hub)
    hub.repos[REPO].files["LICENSE"] = (False, b"kept")
    hub.log.clear()
    assemble_dataset(dataset, packaged(tmp_path / "fewer", shards=4, rows=2), "# Card\n")
    done = publish(dataset, hub)
    assert (done.uploaded, done.deleted, done.commits) == (3, 1, 1)
    assert hub.count("PUT", "") == 1  # the index; card and manifest travel in the commit
    assert on_hub(hub) == {**snapshot(dataset), "LICENSE": b"kept"}


def test_a_failing_commit_says_how_far_it_came_and_the_next_call_finishes(dataset: Path, hub: FakeHub) -> None:
    commits = iter(range(9))
    hub.refuse = lambda method, path: 500 if "/commit/" in path and next(commits) == 1 else None
    with pytest.raises(IncompleteRunError, match="2 of 8 files") as raised:
        publish(dataset, hub)
    assert "\n" not in str(raised.value)
    put = hub.count("PUT", "")
    hub.refuse = lambda method, path: None
    publish(dataset, hub)
    assert on_hub(hub) == snapshot(dataset)
    # Also what the failed commit had uploaded is not uploaded again: 5 tars and the index, once each.
    assert put == 4 and hub.count("PUT", "") == 6


def test_a_refused_upload_is_one_paragraph_and_resumes(dataset: Path, hub: FakeHub) -> None:
    hub.refuse = lambda method, path: 507 if method == "PUT" and hub.count("PUT", "") == 4 else None
    with pytest.raises(IncompleteRunError, match="507"):
        publish(dataset, hub)
    hub.refuse = lambda method, path: None
    publish(dataset, hub)
    assert on_hub(hub) == snapshot(dataset)


def test_one_hiccup_of_the_storage_is_retried(dataset: Path, hub: FakeHub) -> None:
    hub.refuse = lambda method, path: 503 if method == "PUT" and hub.count("PUT", "") == 2 else None
    publish(dataset, hub)
    assert on_hub(hub) == snapshot(dataset)


def test_a_wrong_token_is_a_request_error(dataset: Path, hub: FakeHub) -> None:
    with pytest.raises(RequestError, match="HF_TOKEN") as raised:
        publish(dataset, hub, token="hf_wrong")
    assert "\n" not in str(raised.value) and "hf_wrong" not in str(raised.value)
    assert hub.repos == {}


def test_a_name_that_the_hub_cannot_have_is_a_request_error(dataset: Path, hub: FakeHub) -> None:
    config = ExportSection(endpoint=hub.endpoint)
    with pytest.raises(RequestError, match="organisation/name"):
        export_hub(dataset, "a/b/c", config, token=TOKEN)


def test_two_exports_at_once_do_not_mix(dataset: Path, hub: FakeHub) -> None:
    def intrude(method: str, path: str) -> None:
        if "/commit/" in path:
            hub.repos[REPO].commits.append("f" * 40)

    hub.refuse = intrude
    with pytest.raises(IncompleteRunError, match="412"):
        publish(dataset, hub)
    assert on_hub(hub) == {}


def test_a_damaged_tar_is_not_published(dataset: Path, hub: FakeHub) -> None:
    tar = dataset / "data" / "00003.tar"
    content = bytearray(tar.read_bytes())
    content[700] ^= 1
    tar.write_bytes(content)
    with pytest.raises(RequestError, match=r"data/00003\.tar has other content"):
        publish(dataset, hub)
    assert "data/00003.tar" not in on_hub(hub)


def test_what_the_hub_lost_is_noticed_after_the_upload(dataset: Path, hub: FakeHub) -> None:
    commits = iter(range(9))

    def lose(method: str, path: str) -> None:
        if "/commit/" in path and next(commits) == 3:
            hub.repos[REPO].files["data/00000.tar"] = (True, b"rotten")

    hub.refuse = lose
    with pytest.raises(IncompleteRunError, match=r"data/00000\.tar"):
        publish(dataset, hub)
