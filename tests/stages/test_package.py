import hashlib
import json
import math
import string
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import tables
from schemas.errors import ContractError
from stages.caption_figures import caption_metrics
from stages.package import PackageSection, PackageStage, canonical_json
from stages.priors import DecidedPriors
from stages.tar import DeterministicTar
from tests.fakes.looking import section_of
from tests.fakes.packaged import PROVENANCE, MemoryImages, package_stage, photograph, shard_input, uid_of


def test_members_are_adjacent_in_row_order_and_images_are_the_original_bytes(tmp_path: Path) -> None:
    output = package_stage().process(shard_input(tmp_path))
    with tarfile.open(output.files["dataset"]) as tar:
        names = tar.getnames()
        assert names == [f"{uid_of(i)}.{ext}" for i in range(6) for ext in ("jpg", "txt", "json")]
        for i in range(6):
            member = tar.extractfile(f"{uid_of(i)}.jpg")
            text = tar.extractfile(f"{uid_of(i)}.txt")
            assert member is not None and member.read() == photograph(i)[1]
            assert text is not None and text.read().decode() == f"Photograph {i}, sehr schön 图."


def test_rows_find_the_images_in_the_tar_without_reading_it(tmp_path: Path) -> None:
    output = package_stage().process(shard_input(tmp_path))
    tables.check_table(output.rows, tables.PACKAGE, "package")
    content = output.files["dataset"].read_bytes()
    for row in output.rows.to_pylist():
        image = content[row["image_offset"] : row["image_offset"] + row["image_bytes"]]
        assert hashlib.sha256(image).hexdigest() == row["sha256"]
    assert output.rows.column("uid").to_pylist() == [uid_of(i) for i in range(6)]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    first = package_stage().process(shard_input(tmp_path / "a")).files["dataset"].read_bytes()
    second = package_stage().process(shard_input(tmp_path / "b")).files["dataset"].read_bytes()
    assert first == second


def test_tar_headers_hold_nothing_of_the_machine(tmp_path: Path) -> None:
    output = package_stage().process(shard_input(tmp_path))
    with tarfile.open(output.files["dataset"]) as tar:
        for m in tar:
            assert (m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) == (0, 0, 0, "", "", 0o644)


def test_json_says_where_the_sample_is_from_and_what_the_experts_saw(tmp_path: Path) -> None:
    output = package_stage().process(shard_input(tmp_path))
    with tarfile.open(output.files["dataset"]) as tar:
        member = tar.extractfile(f"{uid_of(5)}.json")
        assert member is not None
        sample = json.loads(member.read())
    assert sample["url"] == "https://example.org/5.jpg"
    assert sample["alt_text"] == "a <b>photo</b>"
    assert sample["models"] == {"embed": "folder:abc", "caption": "org/llava@1"}
    assert (sample["prompt_version"], sample["engine"]) == (PROVENANCE["prompt"], PROVENANCE["engine"])
    priors = json.loads(sample["priors"])
    assert priors["closed_set"]["boxes"] == [
        {"anchor": 0, "label": "cat", "score": 0.9, "x1": 0.1, "x2": 0.3, "y1": 0.2, "y2": 0.4}
    ]
    depth = priors["depth"]
    assert (depth["disparity_min"], depth["disparity_max"], "disparity_png" in depth) == (0.5, 9.25, False)
    assert [(one["expert"], one["anchor"]) for one in depth["objects"]] == [("closed_set", 0)]
    assert json.loads(sample["findings"]) == [{"kind": "ocr", "detail": "“x”"}]


def test_json_holds_what_passes_the_thresholds_and_they_are_part_of_the_identity(tmp_path: Path) -> None:
    strict = PackageStage(
        PackageSection(), DecidedPriors(section_of(closed_set={"threshold": 0.95}, ocr={})), lambda: PROVENANCE
    )
    with tarfile.open(strict.process(shard_input(tmp_path)).files["dataset"]) as tar:
        member = tar.extractfile(f"{uid_of(5)}.json")
        assert member is not None
        priors = json.loads(json.loads(member.read())["priors"])
    assert priors["closed_set"]["boxes"] == [] and len(priors["ocr"]["lines"]) == 1
    assert strict.decisions()["closed_set"]["threshold"] == 0.95


def test_depth_maps_are_members_only_where_asked_for(tmp_path: Path) -> None:
    shard = shard_input(tmp_path)
    with tarfile.open(package_stage(depth_maps=True).process(shard).files["dataset"]) as tar:
        names = tar.getnames()
    assert names[:4] == [f"{uid_of(0)}.{ext}" for ext in ("jpg", "txt", "json", "depth.png")]


def test_metrics_tell_the_size_of_the_tar_and_of_the_captions(tmp_path: Path) -> None:
    shard = shard_input(tmp_path)
    output = package_stage().process(shard)
    captions = shard.tables["caption"]
    counted = caption_metrics(captions.column("uid").to_pylist(), captions.column("caption").to_pylist())
    assert counted["captions"] == 6 and counted["caption_words"] > 0
    assert output.metrics == {"bytes": float(output.files["dataset"].stat().st_size), **counted}


def test_a_shard_without_captions_is_an_empty_tar(tmp_path: Path) -> None:
    shard = shard_input(tmp_path, overrides={"caption": tables.CAPTION.empty_table()})
    output = package_stage().process(shard)
    assert output.rows.num_rows == 0
    with tarfile.open(output.files["dataset"]) as tar:
        assert tar.getnames() == []


def test_damaged_image_bytes_are_refused(tmp_path: Path) -> None:
    shard = shard_input(tmp_path)
    content = bytearray(shard.images.read("00007", 0, 1 << 30))
    content[100] ^= 1
    shard.images = MemoryImages({"00007": bytes(content)})
    with pytest.raises(OSError, match=uid_of(0)):
        package_stage().process(shard)


def test_provenance_is_part_of_the_identity_and_upstream_tables_are_named() -> None:
    stage = package_stage()
    assert stage.models() == PROVENANCE
    assert stage.also_reads[0] == "select" and "perceive.ocr" in stage.also_reads


@pytest.mark.parametrize("name", ["../evil.jpg", "/abs.jpg", "a/b.jpg", ".jpg", "ü.jpg"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with (tmp_path / "x.tar").open("wb") as raw, DeterministicTar(raw) as tar, pytest.raises(ContractError):
        tar.add(name, b"x")


@given(
    st.dictionaries(st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=32), st.binary(max_size=1500))
)
def test_any_members_come_back_and_lie_where_add_says(tmp_path_factory: pytest.TempPathFactory, members: dict) -> None:
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    with path.open("wb") as raw, DeterministicTar(raw) as tar:
        offsets = {name: tar.add(f"{name}.jpg", content) for name, content in members.items()}
    whole = path.read_bytes()
    for name, content in members.items():
        assert whole[offsets[name] : offsets[name] + len(content)] == content
    with tarfile.open(path) as tar:
        assert {m.name[:-4]: tar.extractfile(m).read() for m in tar} == members  # type: ignore[union-attr]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(width=32) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(_JSON)
def test_canonical_json_is_strict_json_and_stable(value: object) -> None:
    text = canonical_json(value)
    again = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert canonical_json(again) == text


def test_canonical_json_rounds_float32_noise() -> None:
    score = pa.array([0.9], pa.float32()).to_pylist()[0]
    assert canonical_json({"b": score, "a": math.nan}) == '{"a":null,"b":0.9}'
