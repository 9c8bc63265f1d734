"""The dataset as its users read it."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from schemas.summary import RunSummary, StageSummary
from stages.card import CardSection, render_card
from stages.dataset import assemble_dataset
from tests.fakes.packaged import packaged, photograph, uid_of

ROWS = 12


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Formats alternate, and the first samples have neither alt text nor priors nor findings: a reader that infers
    # types from the first samples must still take the later ones.
    root = tmp_path_factory.mktemp("readers")
    summary = RunSummary("readers", (StageSummary("package", ROWS, ROWS),))
    assemble_dataset(root / "dataset", packaged(root), render_card(summary, CardSection()))
    return root / "dataset"


def test_webdataset_reads_the_original_bytes(dataset: Path) -> None:
    import webdataset

    tars = f"{dataset}/data/{{00000..00001}}.tar"
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert [s["__key__"] for s in samples] == [uid_of(i) for i in range(ROWS)]
    assert [s["jpg"] for s in samples] == [photograph(i)[1] for i in range(ROWS)]


def test_webdataset_decodes_images_of_any_format_captions_and_priors(dataset: Path) -> None:
    import webdataset

    pipeline = webdataset.WebDataset(str(dataset / "data" / "00000.tar"), shardshuffle=False).decode("pil")
    for i, (image, caption, meta) in enumerate(pipeline.to_tuple("jpg", "txt", "json")):
        assert image.size == photograph(i)[2:]
        assert caption == f"Photograph {i}, sehr schön 图."
        assert (meta["width"], meta["height"]) == image.size
        assert set(json.loads(meta["priors"])) == {"tags", "closed_set", "ocr", "depth", "florence"}


@pytest.mark.parametrize("by", ["data_files", "folder"])
def test_datasets_reads_every_sample(dataset: Path, tmp_path: Path, by: str) -> None:
    import datasets

    where = (
        {"path": "webdataset", "data_files": f"{dataset}/data/*.tar"} if by == "data_files" else {"path": str(dataset)}
    )
    loaded = datasets.load_dataset(**where, split="train", cache_dir=str(tmp_path))
    rows = list(loaded.cast_column("jpg", datasets.Image(decode=False)))
    assert [r["__key__"] for r in rows] == [uid_of(i) for i in range(ROWS)]
    for i, row in enumerate(rows):
        form, content, *_ = photograph(i)
        assert row["jpg"]["bytes"] == content
        assert row["txt"] == f"Photograph {i}, sehr schön 图."
        assert row["json"]["format"] == form
        assert Image.open(io.BytesIO(row["jpg"]["bytes"])).format == form.upper()
    assert rows[5]["json"]["alt_text"] == "a <b>photo</b>" and rows[0]["json"]["alt_text"] == ""
    assert json.loads(rows[5]["json"]["priors"])["ocr"]["lines"][0]["text"] == "STOP"
    assert loaded[0]["jpg"].size == photograph(0)[2:]


def test_datasets_streams(dataset: Path) -> None:
    import datasets

    stream = datasets.load_dataset(str(dataset), split="train", streaming=True)
    assert [row["__key__"] for row in stream] == [uid_of(i) for i in range(ROWS)]
