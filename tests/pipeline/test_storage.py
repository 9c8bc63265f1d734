import threading
from pathlib import Path

import pytest

from pipeline.storage import LocalStorage, open_storage
from schemas.errors import RequestError


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "run")


def test_create_lets_exactly_one_of_many_writers_win(storage: LocalStorage) -> None:
    won: list[int] = []

    def write(i: int) -> None:
        if storage.create("a/b.json", str(i).encode()):
            won.append(i)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(won) == 1
    assert storage.read("a/b.json") == str(won[0]).encode()


def test_replace_only_replaces_what_was_read(storage: LocalStorage) -> None:
    storage.write("k", b"one")
    assert not storage.replace("k", b"other", b"two")
    assert storage.replace("k", b"one", b"two")
    assert storage.read("k") == b"two"
    assert not storage.replace("absent", b"", b"x")
    assert not storage.exists("absent")


def test_upload_moves_a_file_whole_and_reads_ranges(storage: LocalStorage, tmp_path: Path) -> None:
    path = tmp_path / "made"
    path.write_bytes(bytes(range(100)))
    storage.upload(path, "stage/data/x.tar")
    assert storage.read("stage/data/x.tar", 10, 5) == bytes(range(10, 15))
    assert storage.size("stage/data/x.tar") == 100
    assert storage.list("stage") == ["stage/data/x.tar"]


def test_listing_shows_no_temporary_files(storage: LocalStorage) -> None:
    storage.write("s/one", b"1")
    (storage.root / "s" / ".two.tmp").write_bytes(b"half")
    assert storage.list("s") == ["s/one"]
    assert storage.list("nothing") == []


def test_scratch_is_empty_even_after_a_death(storage: LocalStorage) -> None:
    (storage.scratch("a") / "left").write_bytes(b"x")
    assert list(storage.scratch("a").iterdir()) == []


def test_an_unsupported_scheme_says_what_to_do() -> None:
    with pytest.raises(RequestError, match="file system"):
        open_storage("gs://bucket/run")


def test_a_relative_run_directory_is_found_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = open_storage("runs/demo")
    monkeypatch.chdir("/")
    storage.write("k", b"here")
    assert (tmp_path / "runs/demo/k").read_bytes() == b"here"
    assert open_storage(storage.location).read("k") == b"here"
