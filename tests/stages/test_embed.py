from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pydantic import ValidationError

from schemas.errors import RequestError, SetupError
from schemas.ledger import Reason
from schemas.tables import DOWNLOAD, check_table
from stages.base import ShardInput
from stages.embed import EmbedSection, EmbedStage
from tests.photographs import awkward_files, encoded, photograph

NAMES = ["astronaut", "camera", "chelsea", "coffee", "coins", "rocket"]


class MemoryImages:
    def __init__(self, blob: bytes) -> None:
        self._blob = blob

    def read(self, shard: str, offset: int, size: int) -> bytes:
        assert shard == "00000"
        return self._blob[offset : offset + size]


def shard(images: dict[str, bytes]) -> ShardInput:
    rows, blob = [], b""
    for uid, content in images.items():
        row = dict.fromkeys(("phash", "width", "height", "orientation"), 0) | {"sha256": "", "format": ""}
        rows.append(
            row | {"uid": uid, "url": f"http://a/{uid}", "image_offset": len(blob), "image_bytes": len(content)}
        )
        blob += content
    table = pa.Table.from_pylist(rows, schema=DOWNLOAD)
    return ShardInput("00000", {"download": table}, MemoryImages(blob), Path())


@pytest.fixture(scope="module")
def folder(small_weights):
    return small_weights["clip"]


@pytest.fixture(scope="module")
def files():
    """Photographs, then a copy of each at half its size."""
    photos = {name: photograph(name) for name in NAMES}
    small = {f"{name} small": photo.resize((photo.width // 2, photo.height // 2)) for name, photo in photos.items()}
    return {name: encoded(photo, "JPEG", quality=80) for name, photo in (photos | small).items()}


@pytest.fixture(scope="module")
def embed(folder):
    """Run the stage over images; opened once for every config."""
    opened: dict[tuple, EmbedStage] = {}

    def run(images, **config):
        key = tuple(sorted(config.items()))
        if key not in opened:
            opened[key] = EmbedStage(EmbedSection(**{"model": str(folder), "precision": "float32"} | config))
            opened[key].check()
            opened[key].open()
        output = opened[key].process(shard(images))
        check_table(output.rows, opened[key].schema, "embed")
        return output

    yield run
    for stage in opened.values():
        stage.close()


def vectors(output):
    column = output.rows.column("embedding").combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)


def test_unit_vectors_in_row_order_and_copies_are_nearest(embed, files):
    output = embed(files)
    assert output.rows.column("uid").to_pylist() == list(files)
    assert vectors(output).dtype == np.float16
    rows = vectors(output).astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3)
    cosines = rows @ rows.T - 2 * np.eye(len(rows))
    np.testing.assert_array_equal(cosines.argmax(1), np.roll(np.arange(len(rows)), len(NAMES)))


def test_the_same_shard_gives_the_same_bytes(embed, files):
    assert embed(files).rows.equals(embed(files).rows)


@pytest.mark.parametrize(
    ("config", "apart"), [({"decode_threads": 1}, 0), ({"batch_size": 5}, 1e-3), ({"precision": "bfloat16"}, 0.05)]
)
def test_settings_that_cost_time_or_bits(embed, files, config, apart):
    np.testing.assert_allclose(vectors(embed(files, **config)), vectors(embed(files)), rtol=0, atol=apart)


def test_what_does_not_decode_stops_and_the_rest_goes_on(embed, files):
    whole = files["coffee"]
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    png = bytearray(encoded(noise))
    png[200:260] = bytes(60)
    images = {"a": whole, "b": whole[: len(whole) // 2], "c": b"", "d": b"<html>", "e": bytes(png), "f": whole}
    output = embed(images)
    assert output.rows.column("uid").to_pylist() == ["a", "f"]
    assert [(d.uid, d.url, d.reason) for d in output.drops] == [(u, f"http://a/{u}", Reason.DECODE) for u in "bcde"]
    np.testing.assert_array_equal(*vectors(output))


def test_odd_files_decode(embed):
    odd = awkward_files()
    output = embed(odd)
    assert output.drops == []
    assert output.rows.column("uid").to_pylist() == list(odd)


def test_an_empty_shard_keeps_the_width(embed, files):
    width = embed(files).rows.schema.field("embedding").type.list_size
    assert embed({}).rows.schema.field("embedding").type.list_size == width


def test_identity_is_the_weights_not_the_place(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())

    def identity(model):
        return EmbedStage(EmbedSection(model=model)).models()

    assert identity(str(folder)) == identity(str(tmp_path))
    weights = tmp_path / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00\x01")
    assert identity(str(folder)) != identity(str(tmp_path))
    hub = [EmbedStage(EmbedSection(model=name, revision="abc")) for name in ("org/name", "hf-hub:org/name")]
    assert [stage.models() for stage in hub] == [{"model": "org/name@abc"}] * 2
    assert EmbedStage(EmbedSection()).models() == {"model": "open_clip:EVA02-L-14@merged2b_s4b_b131k"}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model": "./no/such/folder"}, "does not exist"),
        ({"model": "ViT-B-33"}, "no weights for ViT-B-33"),
        ({"model": "ViT-B-32", "pretrained": "mine"}, "no weights mine"),
        ({"model": "ViT-B-32", "pretrained": None}, "no weights None"),
    ],
)
def test_unknown_models_are_said_before_anything_starts(config, says):
    with pytest.raises(RequestError, match=says):
        EmbedStage(EmbedSection(**config)).check()


def test_the_defaults_exist():
    EmbedStage(EmbedSection()).check()


def test_a_folder_without_weights_cannot_start(folder, tmp_path):
    with pytest.raises(RequestError, match="open_clip_config"):
        EmbedStage(EmbedSection(model=str(tmp_path))).check()
    (tmp_path / "open_clip_config.json").write_bytes((folder / "open_clip_config.json").read_bytes())
    stage = EmbedStage(EmbedSection(model=str(tmp_path)))
    with pytest.raises(SetupError, match="cannot be loaded on cpu"):
        stage.open()
    stage.close()


def test_a_revision_belongs_to_a_hub_model():
    with pytest.raises(ValidationError, match="org/name"):
        EmbedSection(revision="abc")
