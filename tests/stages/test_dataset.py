import itertools
import json
import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from schemas.errors import RequestError
from stages.dataset import PackagedShard, assemble_dataset, check_dataset, read_manifest
from stages.export import export_folder
from tests.fakes.packaged import packaged, photograph, snapshot, uid_of


@pytest.fixture
def shards(tmp_path: Path) -> list[PackagedShard]:
    return packaged(tmp_path)


def test_the_folder_holds_tars_index_card_and_manifest(tmp_path: Path, shards: list[PackagedShard]) -> None:
    manifest = assemble_dataset(tmp_path / "dataset", shards, "# Card\n")
    files = snapshot(tmp_path / "dataset")
    assert sorted(files) == ["README.md", "data/00000.tar", "data/00001.tar", "index.parquet", "manifest.json"]
    assert files["data/00001.tar"] == shards[1].tar.read_bytes()
    assert manifest == read_manifest(tmp_path / "dataset")
    assert manifest.rows == 12
    assert check_dataset(tmp_path / "dataset") == []


def test_the_index_finds_every_image(tmp_path: Path, shards: list[PackagedShard]) -> None:
    assemble_dataset(tmp_path / "dataset", shards, "")
    rows = pq.read_table(tmp_path / "dataset" / "index.parquet").to_pylist()
    assert [r["uid"] for r in rows] == [uid_of(i) for i in range(12)]
    for i, row in enumerate(rows):
        content = (tmp_path / "dataset" / row["tar"]).read_bytes()
        assert content[row["image_offset"] :][: row["image_bytes"]] == photograph(i)[1]


def test_repeating_changes_nothing(tmp_path: Path, shards: list[PackagedShard]) -> None:
    dataset = tmp_path / "dataset"
    assemble_dataset(dataset, shards, "# Card\n")
    before = {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in dataset.rglob("*") if p.is_file()}
    assemble_dataset(dataset, shards, "# Card\n")
    assert {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in dataset.rglob("*") if p.is_file()} == before


def test_stale_tars_go_and_empty_shards_leave_no_gap(tmp_path: Path, shards: list[PackagedShard]) -> None:
    dataset = tmp_path / "dataset"
    assemble_dataset(dataset, shards, "")
    empty = replace(shards[0], rows=shards[0].rows.slice(0, 0))
    assert assemble_dataset(dataset, [empty, shards[1]], "").rows == 6
    assert [p.name for p in (dataset / "data").iterdir()] == ["00000.tar"]
    assert (dataset / "data" / "00000.tar").read_bytes() == shards[1].tar.read_bytes()
    assert check_dataset(dataset) == []


def test_tars_are_copied_where_links_cannot_be(
    tmp_path: Path, shards: list[PackagedShard], monkeypatch: pytest.MonkeyPatch
) -> None:
    assemble_dataset(tmp_path / "linked", shards, "")

    def refuse(*_: object) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assemble_dataset(tmp_path / "copied", shards, "")
    assert snapshot(tmp_path / "copied") == snapshot(tmp_path / "linked")


def test_a_tar_cut_between_members_is_found(tmp_path: Path, shards: list[PackagedShard]) -> None:
    dataset = tmp_path / "dataset"
    assemble_dataset(dataset, shards, "")
    export_folder(dataset, tmp_path / "copy")
    tar = tmp_path / "copy" / "data" / "00001.tar"
    row = shards[1].rows.to_pylist()[3]
    os.truncate(tar, row["image_offset"] - 512)
    assert check_dataset(tmp_path / "copy") == [
        f"data/00001.tar has {tar.stat().st_size} bytes, the manifest says {shards[1].tar.stat().st_size}."
    ]
    with pytest.raises(RequestError, match=r"data/00001\.tar"):
        export_folder(tmp_path / "copy", tmp_path / "further")
    export_folder(dataset, tmp_path / "copy")
    assert check_dataset(tmp_path / "copy") == []


def test_a_tar_cut_in_the_store_is_not_taken(tmp_path: Path, shards: list[PackagedShard]) -> None:
    row = shards[1].rows.to_pylist()[3]
    os.truncate(shards[1].tar, row["image_offset"] - 512)
    with pytest.raises(RequestError, match="package shard 00001"):
        assemble_dataset(tmp_path / "dataset", shards, "")
    assert not (tmp_path / "dataset" / "manifest.json").exists()


def test_flipped_bits_and_missing_files_are_found(tmp_path: Path, shards: list[PackagedShard]) -> None:
    assemble_dataset(tmp_path / "dataset", shards, "# Card\n")
    copy = tmp_path / "copy"
    export_folder(tmp_path / "dataset", copy)
    content = bytearray((copy / "data" / "00000.tar").read_bytes())
    content[1000] ^= 4
    (copy / "data" / "00000.tar").write_bytes(content)
    (copy / "README.md").unlink()
    assert check_dataset(copy) == [
        "data/00000.tar has other content than the manifest says.",
        "README.md is missing.",
    ]


def test_an_exported_folder_is_the_dataset(tmp_path: Path, shards: list[PackagedShard]) -> None:
    assemble_dataset(tmp_path / "dataset", shards, "# Card\n")
    export_folder(tmp_path / "dataset", tmp_path / "deep" / "copy")
    assert snapshot(tmp_path / "deep" / "copy") == snapshot(tmp_path / "dataset")


def test_foreign_folders_are_left_alone(tmp_path: Path, shards: list[PackagedShard]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "README.md").write_text("mine")
    with pytest.raises(RequestError, match="not a dataset"):
        assemble_dataset(home, shards, "")
    assert snapshot(home) == {"README.md": b"mine"}
    with pytest.raises(RequestError, match="not a folder"):
        assemble_dataset(home / "README.md", shards, "")


def test_an_unfinished_dataset_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no finished dataset"):
        read_manifest(tmp_path)
    assert "no finished dataset" in check_dataset(tmp_path)[0]
    (tmp_path / "manifest.json").write_text(json.dumps({"files": [{"name": 1}]}))
    with pytest.raises(RequestError, match="not a dataset manifest"):
        read_manifest(tmp_path)


def test_killed_at_any_moment_it_is_either_whole_or_known_as_unfinished(tmp_path: Path) -> None:
    sets = packaged(tmp_path / "a", 3, 4), packaged(tmp_path / "b", 2, 5)
    dataset, fork = tmp_path / "dataset", multiprocessing.get_context("fork")
    assemble_dataset(tmp_path / "unbroken", sets[1], "# Card 1\n")

    def change_for_ever() -> None:
        for k in itertools.cycle((0, 1)):
            assemble_dataset(dataset, sets[k], f"# Card {k}\n")

    unfinished = 0
    for step in range(40):
        child = fork.Process(target=change_for_ever)
        child.start()
        time.sleep(0.02 + step * 0.0007)
        child.kill()
        child.join()
        child.close()
        if (dataset / "manifest.json").exists():
            assert check_dataset(dataset) == []
        else:
            unfinished += 1
        assemble_dataset(dataset, sets[1], "# Card 1\n")
        assert snapshot(dataset) == snapshot(tmp_path / "unbroken")
    assert unfinished > 0  # the kills hit something
