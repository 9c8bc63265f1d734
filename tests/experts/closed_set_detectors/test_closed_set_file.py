"""Boxes of an external detector: which record is whose, in which frame, and what a broken file says."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image, ImageOps

from experts.base import ROW
from experts.closed_set import ClosedSet, ClosedSetSection
from experts.closed_set_detectors.file import records, upright
from schemas.errors import RequestError
from schemas.pictures import decode_rgb
from tests.photographs import ORIENTATION, encoded

RECORDS = [
    {"id": "a", "boxes": [[10, 20, 60, 80], [0, 0, 100, 50]], "scores": [0.9, 0.3], "labels": ["cat", "dog"]},
    {"id": "b", "boxes": [], "scores": [], "labels": []},
    {"id": 7, "boxes": [[-5, 10, 300, 40]], "scores": [0.6], "labels": ["ärmel"]},
]


def written(path, content, lines=False):
    text = "\n".join(json.dumps(one) for one in content) if lines else json.dumps(content, indent=1)
    path.write_text(text if not isinstance(content, str) else content, encoding="utf-8")
    return str(path)


def expert(boxes, **settings):
    made = ClosedSet(ClosedSetSection(family="file", boxes=boxes, **settings))
    made.open("cpu")
    return made


def row(**values):
    plain = {"uid": "a", "url": "https://x/a.jpg", "sha256": "ff", "width": 200, "height": 100, "orientation": 1}
    return {ROW: plain | values}


def measured(made, *rows):
    return [prior["boxes"] for prior in made.measure([Image.new("RGB", (8, 8))] * len(rows), list(rows))]


@pytest.mark.parametrize("name", ["boxes.json", "boxes.jsonl"])
def test_records_are_found_by_uid_and_cut_to_the_picture(tmp_path, name):
    made = expert(written(tmp_path / name, RECORDS, lines=name.endswith("l")))
    first, none, wide = measured(made, row(), row(uid="b"), row(uid="7"))
    assert [(one["label"], one["anchor"]) for one in first] == [("cat", 0), ("dog", 1)]
    assert [first[0][name] for name in ("x1", "y1", "x2", "y2")] == pytest.approx([0.05, 0.2, 0.3, 0.8])
    assert none == []
    (one,) = wide
    assert (one["label"], one["x1"], one["x2"]) == ("ärmel", 0.0, 1.0)
    assert made.decide({"boxes": first}, {})["boxes"] == first[:1]
    assert made.least() == (1, 1)


@pytest.mark.parametrize("key", ["url", "sha256"])
def test_records_are_found_by_what_the_key_names(tmp_path, key):
    content = [{"id": row()[ROW][key], "boxes": [[0, 0, 5, 5]], "scores": [0.7], "labels": ["cat"]}]
    assert len(measured(expert(written(tmp_path / "b.json", content), key=key), row())[0]) == 1


def test_the_floor_and_the_number_kept_hold_for_files_too(tmp_path):
    path = written(tmp_path / "b.json", RECORDS)
    assert [one["label"] for one in measured(expert(path, floor=0.3, threshold=0.3), row())[0]] == ["cat"]
    assert [one["label"] for one in measured(expert(path, keep=1), row())[0]] == ["cat"]


def test_several_files_are_joined_image_by_image(tmp_path):
    other = [{"id": "a", "boxes": [[0, 0, 20, 20]], "scores": [0.95], "labels": ["sofa"]}]
    other.append({"id": "c", "boxes": [[0, 0, 20, 20]], "scores": [0.95], "labels": ["cat"]})
    made = expert([written(tmp_path / "lvis.json", RECORDS), written(tmp_path / "coco.json", other)])
    first, last = measured(made, row(), row(uid="c"))
    assert [(one["label"], one["anchor"]) for one in first] == [("sofa", 2), ("cat", 0), ("dog", 1)]
    assert [one["label"] for one in last] == ["cat"]


def test_a_row_without_a_record_is_an_error_or_has_no_boxes(tmp_path):
    path = written(tmp_path / "b.json", RECORDS)
    with pytest.raises(LookupError, match=r"closed_set\.boxes has no record of uid zz"):
        measured(expert(path), row(uid="zz"))
    assert measured(expert(path, missing="empty"), row(uid="zz")) == [[]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_the_stored_picture_are_turned_as_the_picture_is(tmp_path, orientation):
    stored = Image.new("RGB", (90, 60))
    stored.paste((255, 255, 255), (10, 5, 40, 20))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = decode_rgb(encoded(stored, exif=exif))
    assert image.size == ImageOps.exif_transpose(image).size == ((90, 60) if orientation < 5 else (60, 90))
    lit = np.asarray(image)[..., 0] > 0
    (columns,), (rows,) = lit.any(axis=0).nonzero(), lit.any(axis=1).nonzero()
    wide, high = image.size
    true = [columns[0] / wide, rows[0] / high, (columns[-1] + 1) / wide, (rows[-1] + 1) / high]

    def found(box, frame):
        content = [{"id": "a", "boxes": [box], "scores": [0.9], "labels": ["light"]}]
        made = expert(written(tmp_path / "b.json", content), frame=frame)
        ((one,),) = measured(made, row(width=wide, height=high, orientation=orientation))
        return [one[name] for name in ("x1", "y1", "x2", "y2")]

    assert found([10, 5, 40, 20], "stored") == pytest.approx(true, abs=1e-6)
    pixels = [int(one) for one in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]
    assert found(pixels, "upright") == pytest.approx(true, abs=1e-6)
    assert upright(np.zeros((0, 4)), wide, high, orientation).shape == (0, 4)


def test_the_content_is_the_identity_and_the_place_is_not(tmp_path):
    (tmp_path / "other").mkdir()
    path, copy = (written(folder / "b.json", RECORDS) for folder in (tmp_path, tmp_path / "other"))
    sections = [ClosedSetSection(family="file", boxes=place) for place in (path, copy)]
    one, other = (ClosedSet(section).models() for section in sections)
    assert one == other == {"boxes": hashlib.sha256((tmp_path / "b.json").read_bytes()).hexdigest()}
    assert sections[0].decides() == sections[1].decides()
    written(tmp_path / "b.json", RECORDS[:1])
    assert ClosedSet(sections[0]).models() != one


GOOD = RECORDS[0]
BROKEN = {
    "no list": ('{"a": 1}', "does not read as JSON: it is no list"),
    "cut": (json.dumps(RECORDS)[:-20], "does not read as JSON: "),
    "two values": (f"[{json.dumps(GOOD)} {json.dumps(GOOD)}]", "does not read as JSON: Expecting ',' or ']'"),
    "no object": (["a"], r"record 0 \(from 0\) of .* is of type str and not an object"),
    "no scores": ([GOOD, {"id": "x", "boxes": [], "labels": []}], r"record 1 \(from 0\) of .* has no scores"),
    "lengths": ([GOOD | {"scores": [0.5]}], "has 2 boxes, 1 scores and 2 labels"),
    "three corners": ([GOOD | {"boxes": [[1, 2, 3], [1, 2, 3, 4]]}], "has a box that is not four finite numbers"),
    "not finite": ([GOOD | {"boxes": [[1, 2, 3, float("nan")], [1, 2, 3, 4]]}], "is not four finite numbers"),
    "percent": ([GOOD | {"scores": [90, 30]}], "has a score that is no number from 0 to 1"),
    "label ids": ([GOOD | {"labels": [1, 2]}], "has a label that is no text"),
    "frames": ([GOOD | {"boxes": {"0": []}}], "has boxes, scores or labels that are no list"),
    "id": ([GOOD | {"id": None}], "has an id that is neither text nor an integer"),
    "twice": ([GOOD, GOOD], r"has two records of id a; the second is record 1 \(from 0\)"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_found_before_anything_starts(tmp_path, case):
    content, words = BROKEN[case]
    section = ClosedSetSection(family="file", boxes=written(tmp_path / "b.json", content))
    with pytest.raises(RequestError, match=rf"^perceive\.closed_set\.boxes: .*{words}"):
        ClosedSet(section).models()


def test_a_broken_line_and_a_missing_file_are_found_too(tmp_path):
    (tmp_path / "b.jsonl").write_text(json.dumps(GOOD) + "\n\n{broken\n")
    with pytest.raises(RequestError, match="does not read as JSON lines"):
        ClosedSet(ClosedSetSection(family="file", boxes=str(tmp_path / "b.jsonl"))).models()
    with pytest.raises(RequestError, match=r"is not there, or is no file\. Give the file"):
        ClosedSet(ClosedSetSection(family="file", boxes=str(tmp_path / "no.json"))).models()


def test_an_empty_list_and_odd_spacing_are_read(tmp_path):
    written(tmp_path / "empty.json", " [ \n ] \n")
    assert list(records(tmp_path / "empty.json")) == []
    written(tmp_path / "odd.json", "\n[" + " ,\t\n".join(json.dumps(one) for one in RECORDS) + "\n]\n")
    assert [key for key, *_ in records(tmp_path / "odd.json")] == ["a", "b", "7"]
