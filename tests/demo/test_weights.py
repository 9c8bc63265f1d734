"""The small checkpoints: the same bytes every time, whole or not there, and a tower that tells pictures apart."""

import io

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from demo.weights import FAMILIES, TRAINED, make_weights
from schemas.identity import folder_hash
from tests.photographs import encoded, photograph

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "page", "camera", "brick", "grass", "moon", "coins", "text")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_has_the_same_bytes_every_time(small_weights, tmp_path, family):
    FAMILIES[family](tmp_path)
    assert folder_hash(tmp_path) == folder_hash(small_weights[family])


def test_what_is_there_is_left_alone_and_the_set_is_small(small_weights):
    folder = small_weights["clip"].parent
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert make_weights(folder) == small_weights
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert sum(path.stat().st_size for path in before if path.is_file()) < 60e6


def test_a_copy_of_an_older_trained_model_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr("demo.weights.FAMILIES", {"tagger": FAMILIES["tagger"]})
    copied = make_weights(tmp_path)["tagger"]
    (copied / "config.json").write_text("{}")
    make_weights(tmp_path)
    assert folder_hash(copied) == folder_hash(TRAINED / "tagger")


def test_a_captioner_of_older_weights_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr("demo.weights.FAMILIES", {"captioner": FAMILIES["captioner"]})
    made = make_weights(tmp_path)["captioner"]
    (made / "made_from.txt").write_text("others")
    (made / "config.json").write_text("{}")
    make_weights(tmp_path)
    assert "densefusion" in (made / "config.json").read_text()


def test_what_ships_is_small() -> None:
    assert sum(path.stat().st_size for path in TRAINED.rglob("*") if path.is_file()) < 40e6


def test_a_family_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def broken(folder):
        (folder / "config.json").write_text("{}")
        raise RuntimeError("disk full")

    monkeypatch.setattr("demo.weights.FAMILIES", {"clip": broken})
    with pytest.raises(RuntimeError, match="disk full"):
        make_weights(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_copies_of_a_photograph_are_nearer_than_other_photographs(small_weights):
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{small_weights['clip']}")
    model.eval()

    def embed(images):
        with torch.inference_mode():
            return model.encode_image(torch.stack([transform(image) for image in images]), normalize=True).numpy()

    originals = [photograph(name) for name in PHOTOGRAPHS]
    vectors = embed(originals)
    between = (vectors @ vectors.T)[np.triu_indices(len(originals), 1)]
    again = [Image.open(io.BytesIO(encoded(image, "JPEG", quality=75))) for image in originals]
    smaller = [image.resize((image.width * 2 // 3, image.height * 2 // 3)) for image in originals]
    copies = np.concatenate([(vectors * embed(kind)).sum(axis=1) for kind in (again, smaller)])
    assert copies.min() > 0.85
    assert between.max() < copies.min()
    assert np.median(between) < 0.4
