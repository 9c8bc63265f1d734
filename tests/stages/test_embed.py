import json
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pydantic import ValidationError

from schemas.errors import RequestError, SetupError
from schemas.ledger import Reason
from schemas.section import ModelRef
from schemas.tables import DOWNLOAD, check_table
from stages.base import ShardInput
from stages.embed import EmbedSection, EmbedStage
from stages.image_tower import ImageTower, auto_batch
from tests.photographs import awkward_files, encoded, photograph

NAMES = ["astronaut", "camera", "chelsea", "coffee", "coins", "rocket"]


class MemoryImages:
    """Remembers the name of the thread that made each read."""

    def __init__(self, blob: bytes) -> None:
        self._blob = blob
        self.readers: list[str] = []

    def read(self, shard: str, offset: int, size: int) -> bytes:
        assert shard == "00000"
        self.readers.append(threading.current_thread().name)
        return self._blob[offset : offset + size]


def shard(images: dict[str, bytes], *, backwards: bool = False) -> ShardInput:
    """Rows in the order of `images`, whose bytes lie in that order or in the opposite one, after tar headers."""
    rows, blob = [], b""
    for uid, content in reversed(images.items()) if backwards else images.items():
        row = dict.fromkeys(("phash", "width", "height", "orientation"), 0) | {"sha256": "", "format": ""}
        blob += bytes(512)
        place = {"image_offset": len(blob), "image_bytes": len(content)}
        rows.append(row | place | {"uid": uid, "url": f"http://a/{uid}"})
        blob += content
    table = pa.Table.from_pylist(rows[::-1] if backwards else rows, schema=DOWNLOAD)
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
        output = opened[key].process(images if isinstance(images, ShardInput) else shard(images))
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
    ("config", "units"), [({"decode_threads": 1}, 0), ({"batch_size": 5}, 1), ({"batch_size": 1}, 1)]
)
def test_settings_that_cost_only_time(embed, files, config, units):
    """`units` in the last place of float16."""
    np.testing.assert_array_max_ulp(vectors(embed(files, **config)), vectors(embed(files)), units)


def test_bfloat16_is_near(embed, files):
    np.testing.assert_allclose(vectors(embed(files, precision="bfloat16")), vectors(embed(files)), rtol=0, atol=0.05)


def test_a_vector_does_not_depend_on_its_neighbours(embed, files):
    """So neither does a shard that is cut in two to find a row which kills its worker."""
    rows = dict(zip(files, vectors(embed(files)), strict=True))
    others = {name: content if i % 3 else b"not an image" for i, (name, content) in enumerate(reversed(files.items()))}
    for images in (others, {"rocket": files["rocket"]}):
        output = embed(images)
        for name, row in zip(output.rows.column("uid").to_pylist(), vectors(output), strict=True):
            np.testing.assert_array_equal(row, rows[name])


def test_images_are_read_in_the_threads_that_decode_and_neighbours_at_once(embed, files):
    given = shard(files)
    expected = embed(given, decode_threads=2).rows
    assert 0 < len(given.images.readers) <= 4 < len(files)
    assert {name.split("_")[0] for name in given.images.readers} == {"decode"}
    backwards = shard(files, backwards=True)
    assert embed(backwards, decode_threads=2).rows.equals(expected)
    assert len(backwards.images.readers) == len(files)


def test_more_batches_than_buffers(embed, files):
    many = {f"{i}": content for i, content in enumerate(list(files.values()) * 2)}
    output = embed(many, batch_size=4)
    assert output.rows.column("uid").to_pylist() == list(many)
    np.testing.assert_array_equal(*np.split(vectors(output), 2))
    assert output.metrics["computed"] == len(many)
    assert output.metrics["flops"] > 1e6 * len(many) and output.metrics["model_seconds"] > 0


def test_an_object_that_cannot_be_read_fails_the_shard(embed, files):
    given = shard(files)
    given.images.read = lambda *_: (_ for _ in ()).throw(ConnectionError("gone"))
    with pytest.raises(ConnectionError):
        embed(given)


def test_out_of_memory_halves_the_pass_and_goes_on(folder, files, embed, monkeypatch):
    forward, sizes = ImageTower._forward, []

    def small(tower, pictures):
        sizes.append(len(pictures))
        if len(pictures) > 4:
            raise MemoryError
        return forward(tower, pictures)

    monkeypatch.setattr(ImageTower, "_forward", small)
    stage = EmbedStage(EmbedSection(model=str(folder), precision="float32", batch_size=18))
    stage.open()
    output = stage.process(shard(files))
    stage.close()
    assert sizes == [18, 9, 4, 4, 4, 4, 2]
    np.testing.assert_array_max_ulp(vectors(output), vectors(embed(files)), 1)


@pytest.mark.parametrize(("flops", "images"), [(8.8e9, 1024), (162e9, 64), (1e12, 8), (1e7, 1024), (1e14, 8)])
def test_the_batch_of_a_gpu_follows_from_the_work_of_an_image(flops, images):
    assert auto_batch("cuda", flops) == images


def test_the_work_of_an_image_is_counted(folder):
    """In each layer 24 d^2 a token and 4 d a pair of tokens; then the patches."""
    tower = ImageTower(ModelRef(model=str(folder)), None, "float32", "cpu")
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    vision = config["vision_cfg"]
    d, layers, patch = vision["width"], vision["layers"], vision["patch_size"]
    patches = (vision["image_size"] // patch) ** 2
    tokens = patches + 1
    flops = layers * (24 * tokens * d**2 + 4 * tokens**2 * d) + 6 * patches * d * patch**2
    assert tower.flops == pytest.approx(flops, rel=0.02)


def test_jpegs_are_decoded_no_larger_than_needed(embed, files, monkeypatch):
    photo = photograph("coffee").resize((2400, 1600), Image.Resampling.LANCZOS)
    images = {"large": encoded(photo, "JPEG", quality=90), "whole": encoded(photo, "WEBP", quality=98)}
    sizes = []
    prepare = ImageTower.prepare
    monkeypatch.setattr(ImageTower, "prepare", lambda self, image: (sizes.append(image.size), prepare(self, image))[1])
    scaled, whole = vectors(embed(images)).astype(np.float32)
    assert sorted(sizes) == [(300, 200), (2400, 1600)]
    assert scaled @ whole > 0.999


def test_a_strip_does_not_become_gigabytes(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["resize_mode"] = "shortest"
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    tower = ImageTower(ModelRef(model=str(tmp_path)), None, "float32", "cpu")
    strip = Image.new("RGB", (60_000, 2))
    strip.paste((255, 0, 0), (29_999, 0, 30_001, 2))
    picture = tower.prepare(strip)
    assert picture.shape == (tower.least[1], tower.least[0], 3) and picture[80, 80, 0] > 200


@pytest.mark.gpu
def test_on_a_gpu_from_pinned_memory(folder, files, embed):
    stage = EmbedStage(EmbedSection(model=str(folder), precision="bfloat16", resources={"gpus": 1}, batch_size=5))
    stage.open()
    assert stage._tower.buffer().is_pinned()
    output = stage.process(shard(files))
    assert stage.process(shard(files)).rows.equals(output.rows)
    stage.close()
    np.testing.assert_allclose(vectors(output), vectors(embed(files)), rtol=0, atol=0.05)
    seconds, flops = output.metrics["model_seconds"], output.metrics["flops"]
    print(f"{len(files) / seconds:.0f} images/s, {flops / seconds / 1e12:.2f} TFLOP/s")


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
