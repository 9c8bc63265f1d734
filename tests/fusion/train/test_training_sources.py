import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.box_choice import BoxChoiceSection, choose_boxes
from fusion.priors import Priors
from fusion.prompt import Prompt, PromptSection
from fusion.train.section import DenseFusionSource, LLaVASource, RowsSource, WebDatasetSource
from fusion.train.sources import records, source_of
from fusion.train.sources.base import BadRowError, Source, image_part, message, text_part
from fusion.train.sources.object_boxes import ObjectBoxes
from fusion.train.sources.records import Records
from schemas.errors import RequestError
from stages.dataset import assemble_dataset
from tests.fakes.packaged import EXPERTS, packaged

PICTURE, ASK = image_part(), text_part("What?")


def llava(path: Path, rows: list[Any], **section: Any) -> Source:
    path.write_text(json.dumps(rows))
    return source_of(LLaVASource(format="llava", path=str(path), images=str(path.parent), **section))


def turn(human: str, gpt: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": human}, {"from": "gpt", "value": gpt}]


def reason(source: Source, row: int = 0) -> str:
    with pytest.raises(BadRowError) as caught:
        source.sample(row)
    return caught.value.reason


def test_a_single_picture_comes_before_the_words_as_llava_has_it(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "image": "a.png", "conversations": [*turn("What?\n<image>", "A dog. "), *turn("More?", "No.")]},
        {"id": 2, "image": "a.png", "conversations": turn("<image>", "A cat.")},
        {"id": 3, "image": "a.png", "conversations": turn("What?", "The place was left out.")},
        {"id": 4, "image": ["a.png", "b.png"], "conversations": turn("First <image> then <image> go.", "Two.")},
        {"id": 5, "conversations": turn("An <image> is not meant here.", "Right.")},
        {
            "id": 6,
            "image": "a.png",
            "conversations": [{"from": "gpt", "value": "Hello."}, *turn("<image>\nSo?", "Ok.")],
        },
    ]
    source = llava(tmp_path / "rows.json", rows, system="")
    assert len(source) == 6 and source.words.tolist() == [6, 3, 6, 6, -7, 3]
    system = message("system", text_part(""))
    assert source.sample(0).messages == [
        system,
        message("user", PICTURE, ASK),
        message("assistant", text_part("A dog.")),
        message("user", text_part("More?")),
        message("assistant", text_part("No.")),
    ]
    assert source.sample(2).messages[1] == message("user", PICTURE, ASK)
    four = source.sample(3)
    assert four.messages[1] == message(
        "user", text_part("First"), PICTURE, text_part("then"), PICTURE, text_part("go.")
    )
    assert len(four.images) == 2
    assert source.sample(4).images == [] and [m["role"] for m in source.sample(5).messages] == [
        "system",
        "user",
        "assistant",
    ]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"id": 1, "image": "a.png"}, "malformed"),
        ({"id": 1, "image": "a.png", "conversations": [{"from": "alien", "value": "x"}]}, "malformed"),
        ({"id": 1, "image": {"path": "a.png"}, "conversations": turn("<image>", "x")}, "malformed"),
        ({"id": 1, "image": "a.png", "conversations": turn("<image>", "  ")}, "no_answer"),
        ({"id": 1, "image": "a.png", "conversations": [{"from": "human", "value": "<image>"}]}, "no_answer"),
        ({"id": 1, "image": "a.png", "conversations": turn("<image><image>", "x")}, "placeholders"),
        ({"id": 1, "image": ["a.png", "b.png"], "conversations": turn("<image>", "x")}, "placeholders"),
        ("no object", "malformed"),
    ],
)
def test_a_row_that_cannot_be_learnt_from_has_a_reason(tmp_path: Path, row: Any, expected: str) -> None:
    good = {"id": 0, "conversations": turn("q", "a")}
    assert reason(llava(tmp_path / "rows.json", [good, row]), 1) == expected


def test_a_missing_picture_is_found_when_it_is_read(tmp_path: Path) -> None:
    source = llava(tmp_path / "rows.json", [{"id": 1, "image": "gone.png", "conversations": turn("<image>", "x")}])
    with pytest.raises(BadRowError, match=r"missing_image: .*gone\.png"):
        source.sample(0).images[0]()


@given(
    rows=st.lists(
        st.dictionaries(st.text(max_size=4), st.text(max_size=12) | st.integers() | st.none(), max_size=3), min_size=1
    ),
    indent=st.none() | st.integers(0, 3),
    ascii=st.booleans(),
    chunk=st.integers(4, 40),
)
def test_a_json_array_is_indexed_piece_by_piece(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], indent: int | None, ascii: bool, chunk: int
) -> None:
    path = tmp_path_factory.mktemp("records") / "rows.json"
    path.write_text(json.dumps(rows, indent=indent, ensure_ascii=ascii), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_CHUNK", chunk)
        found = Records(path, len)
    assert [found[i] for i in range(len(found))] == rows
    assert found.words.tolist() == [len(row) for row in rows]


def test_lines_that_are_no_json_are_bad_rows_and_files_that_hold_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a": "\u00fc"}\nnot json\n[1]\n{"a": 3}', encoding="utf-8")
    found = Records(path, len)
    assert len(found) == 5 and [found[i]["a"] for i in (0, 1, 4)] == [1, "ü", 3]
    for row in (2, 3):
        with pytest.raises(BadRowError, match="malformed"):
            found[row]
    assert found.where(1) == f"{path} at byte 10"
    for text, said in (("", "no JSON objects"), ("plain words", "no JSON objects"), ('[{"a": 1}, {"b"', "breaks near")):
        path.write_text(text)
        with pytest.raises(RequestError, match=said):
            Records(path, len)
    path.write_bytes(b'[{"a": "\xff\xfe"}]')
    with pytest.raises(RequestError, match="not UTF-8"):
        Records(path, len)
    with pytest.raises(RequestError, match="There is no file"):
        Records(tmp_path / "none.json", len)


def test_densefusion_rows_find_their_picture_by_path_or_id(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    rows = [
        {"image_id": "1", "image_path": "a/1.jpg", "url": "http://x/1", "caption": "One dog."},
        {"image_id": "2", "image_path": "b/2.jpg", "url": "http://x/2", "caption": "Two dogs."},
        {"image_id": "3", "caption": "None."},
        {"image_id": "4", "caption": " "},
        {"caption": "nowhere"},
        {"image_id": "5"},
    ]
    path = tmp_path / "df.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = source_of(DenseFusionSource(format="densefusion", path=str(path), images=str(tmp_path), question="Q?"))
    assert source.sample(0).messages == [
        message("user", PICTURE, text_part("Q?")),
        message("assistant", text_part("One dog.")),
    ]
    assert [source.sample(i).images[0]() for i in (0, 1)] == [b"a/1.jpg", b"2.png"]
    with pytest.raises(BadRowError, match="missing_image"):
        source.sample(2).images[0]()
    assert [reason(source, i) for i in (3, 4, 5)] == ["no_answer", "malformed", "malformed"]


PRIORS: dict[str, Any] = {
    "closed_set": {
        "error": None,
        "boxes": [
            {"anchor": 0, "label": "dog", "score": 0.9, "x1": 0.1, "y1": 0.2, "x2": 0.5, "y2": 0.6},
            {"anchor": 1, "label": "cat", "score": 0.8, "x1": 0.0, "y1": 0.0, "x2": 1.0, "y2": 1.0},
        ],
    },
    "ocr": {"error": None, "lines": [{"text": "EXIT", "score": 0.9, "polygon": [0.0] * 8}]},
    "tags": {"error": "it failed"},
}


@pytest.mark.parametrize("as_text", [False, True])
def test_rows_with_priors_are_asked_as_the_caption_stage_asks(tmp_path: Path, as_text: bool) -> None:
    row = {
        "image": "a.png",
        "alt_text": "my dog <image>",
        "caption": "A dog.",
        "priors": json.dumps(PRIORS) if as_text else PRIORS,
    }
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "priors": "[1"}) + "\n")
    section = PromptSection(max_boxes=2)
    source = source_of(RowsSource(format="rows", path=str(path), images=str(tmp_path), prompt=section))
    sample, priors = source.sample(0), Priors.of(PRIORS)
    said = Prompt(section).render(row["alt_text"], priors)
    assert sample.messages == [
        message("system", text_part(said.system)),
        message("user", PICTURE, text_part(said.user)),
        message("assistant", text_part("A dog.")),
    ]
    assert "EXIT" in said.user and "<image>" not in said.user
    shown = choose_boxes(priors, BoxChoiceSection(max_boxes=2))
    assert sample.boxes == [[[b["x1"], b["y1"], b["x2"], b["y2"]] for b in shown]] and len(sample.boxes[0]) == 2
    assert reason(source, 1) == "malformed"
    asked = source_of(RowsSource(format="rows", path=str(path), images=str(tmp_path), question="Q?")).sample(0)
    assert asked.messages[0] == message("user", PICTURE, text_part("Q?"))


FOUND = [{"kind": "wrong_side", "detail": "No dog is on the left."}, {"kind": "too_short", "detail": "Say more."}]


@pytest.mark.parametrize("as_text", [False, True])
def test_a_repair_is_asked_as_the_caption_stage_asks_again(tmp_path: Path, as_text: bool) -> None:
    """Findings as a list, or as packaged samples hold them."""
    row = {"image": "a.png", "caption": "A dog on the right.", "priors": PRIORS, "first": " A dog on the left. "}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row | {"findings": json.dumps(FOUND) if as_text else FOUND}))
    section = PromptSection(template="tuned_engine.v1")
    source = source_of(RowsSource(format="rows", path=str(path), images=str(tmp_path), prompt=section))
    sample, prompt = source.sample(0), Prompt(section)
    said = prompt.render(None, Priors.of(PRIORS))
    assert sample.last_answer_only and source.words.tolist() == [5 + 5 + 6 + 2]
    assert sample.messages == [
        message("system", text_part(said.system)),
        message("user", PICTURE, text_part(said.user)),
        message("assistant", text_part("A dog on the left.")),
        message("user", text_part(prompt.repair(["No dog is on the left.", "Say more."]))),
        message("assistant", text_part("A dog on the right.")),
    ]


@pytest.mark.parametrize(
    ("more", "detail"),
    [
        ({"first": " ", "findings": FOUND}, "`first` is no text"),
        ({"first": ["A cat."], "findings": FOUND}, "`first` is no text"),
        ({"first": "A cat."}, "`first` without findings"),
        ({"first": "A cat.", "findings": []}, "`first` without findings"),
        ({"first": "A cat.", "findings": "[1"}, "findings: JSONDecodeError"),
        ({"first": "A cat.", "findings": [{"kind": "wrong_side"}]}, "findings: KeyError"),
        ({"first": "A cat.", "findings": ["No dog is on the left."]}, "findings: TypeError"),
    ],
)
def test_a_repair_that_lacks_something_is_a_bad_row(tmp_path: Path, more: dict[str, Any], detail: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"image": "a.png", "caption": "A dog."} | more))
    source = source_of(RowsSource(format="rows", path=str(path), images=str(tmp_path), prompt=PromptSection()))
    with pytest.raises(BadRowError, match=f"malformed: {detail}"):
        source.sample(0)


def test_a_repair_needs_a_prompt_and_other_rows_may_have_findings(tmp_path: Path) -> None:
    row = {"image": "a.png", "caption": "A dog.", "findings": FOUND}
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(row)}\n{json.dumps(row | {'first': 'A cat.'})}\n")
    source = source_of(RowsSource(format="rows", path=str(path), images=str(tmp_path)))
    assert len(source.sample(0).messages) == 2 and not source.sample(0).last_answer_only
    with pytest.raises(BadRowError, match=r"data\.sources\.prompt"):
        source.sample(1)


def test_packaged_shards_are_read_where_they_lie(tmp_path: Path) -> None:
    shards = packaged(tmp_path, shards=2, rows=7)
    dataset = tmp_path / "dataset"
    assemble_dataset(dataset, shards, "# card")
    source = source_of(WebDatasetSource(format="webdataset", path=str(dataset), prompt=PromptSection()))
    rows = [row for shard in shards for row in shard.rows.to_pylist()]
    assert len(source) == len(rows) == 14
    with tarfile.open(dataset / "data/00000.tar") as tar:
        first = tar.extractfile(rows[6]["image_member"])
        assert first is not None and source.sample(6).images[0]() == first.read()
        member = tar.extractfile(f"{rows[6]['uid']}.json")
        assert member is not None
        about = json.load(member)
    said = Prompt(PromptSection()).render(about["alt_text"], Priors.of(json.loads(about["priors"])))
    assert set(json.loads(about["priors"])) == set(EXPERTS)
    assert [m["content"][-1]["text"] for m in source.sample(6).messages] == [
        said.system,
        said.user,
        rows[6]["caption"],
    ]
    assert rows[8]["uid"] in source.where(8) and "00001.tar" in source.where(8)
    by_pattern = source_of(WebDatasetSource(format="webdataset", path=str(dataset / "data/*.tar")))
    assert by_pattern.words.tolist() == source.words.tolist()

    cut = dataset / "data/00001.tar"
    whole = cut.read_bytes()
    cut.unlink()
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RequestError, match="manifest says"):
        source_of(WebDatasetSource(format="webdataset", path=str(dataset)))
    with pytest.raises(RequestError, match="There is no tar"):
        source_of(WebDatasetSource(format="webdataset", path=str(tmp_path / "none*.tar")))
    (tmp_path / "no.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(RequestError, match="does not read as a tar"):
        source_of(WebDatasetSource(format="webdataset", path=str(tmp_path / "no.tar")))


def test_samples_that_lack_a_member_are_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("a.jpg", "a.json", "b.txt", "c.jpg", "c.txt"):
            data = b'{"priors": "{}"}' if name.endswith("json") else b"words"
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    source = source_of(WebDatasetSource(format="webdataset", path=str(path)))
    assert [reason(source, 0), reason(source, 1)] == ["no_answer", "missing_image"]
    assert source.sample(2).messages[1]["content"] == [text_part("words")]


def test_mg_llavas_boxes_are_thinned_by_label_and_joined_by_id(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 120, (150, 2)).round()
    crowd = np.concatenate([corners, corners + rng.uniform(5, 80, (150, 2)).round()], axis=1)
    scores, labels = rng.uniform(0.2, 1, 150), rng.choice(["dog", "cat", "car"], 150).tolist()
    apart = [[30 * i, 0, 30 * i + 10, 10] for i in range(120)]
    file = [
        {"id": "crowd", "boxes": crowd.tolist(), "scores": scores.tolist(), "labels": labels},
        {
            "id": 7,
            "boxes": [[0, 0, 9, 9], [1, 0, 9, 9], [0, 0, 9, 9]],
            "scores": [0.5, 0.9, 0.4],
            "labels": list("aab"),
        },
        {"id": "many", "boxes": apart, "scores": [1 - i / 200 for i in range(120)], "labels": ["x"] * 60 + ["y"] * 60},
        {"id": "broken", "boxes": [[0, 0, 1, 1]], "scores": [], "labels": []},
        {"id": "none", "boxes": [], "scores": [], "labels": []},
    ]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(file))
    boxes = ObjectBoxes(path)
    assert boxes.of("7") == [[1, 0, 9, 9], [0, 0, 9, 9]]  # the better of two alike, and the other label's
    assert boxes.of("none") == boxes.of("not there") == []
    assert boxes.of("many") == apart[:20] + apart[60:80]  # more than 100 are left: 20 of each label
    assert boxes.of("many", long_text=True) == [apart[0], apart[60]]
    with pytest.raises(BadRowError, match="1 boxes, 0 scores"):
        boxes.of("broken")
    assert boxes.of("crowd") == _plain_nms(crowd, scores, labels)


def _plain_nms(boxes: np.ndarray, scores: np.ndarray, labels: list[str]) -> list[list[float]]:
    """Non-maximum suppression as its definition says, label by label."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        for j in kept:
            if labels[i] == labels[j]:
                width = max(0, min(boxes[i][2], boxes[j][2]) - max(boxes[i][0], boxes[j][0]))
                height = max(0, min(boxes[i][3], boxes[j][3]) - max(boxes[i][1], boxes[j][1]))
                shared = width * height
                areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (boxes[i], boxes[j])]
                if shared / (sum(areas) - shared) > 0.2:
                    break
        else:
            kept.append(i)
    assert len(kept) <= 100
    return [boxes[i].tolist() for i in kept]


def test_llava_rows_get_the_boxes_of_their_id(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps([{"id": 3, "boxes": [[1, 2, 3, 4]], "scores": [1.0], "labels": ["a"]}]))
    rows = [
        {"id": "3", "image": "a.png", "conversations": turn("<image>", "x")},
        {"id": "4", "image": "a.png", "conversations": turn("<image>", "x")},
        {"id": "3", "conversations": turn("q", "x")},
    ]
    source = llava(tmp_path / "rows.json", rows, boxes=str(path))
    assert [source.sample(i).boxes for i in range(3)] == [[[[1, 2, 3, 4]]], [[]], []]
    assert source.sample(0).boxes_in_pixels
