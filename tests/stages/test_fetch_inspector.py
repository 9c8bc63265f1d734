"""Bodies that nobody meant to be images: whatever they hold, there is a reason and no crash."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data as photographs

from schemas.ledger import Reason
from stages.fetch.errors import FetchRefused
from stages.fetch.gif import gif_frames
from stages.fetch.inspector import EXTENSIONS, Inspector, perceptual_hash


def encoded(fmt, frames=1):
    photo = Image.fromarray(photographs.astronaut()[::8, ::8])
    out = io.BytesIO()
    more = {"save_all": True, "append_images": [photo.rotate(90 * i) for i in range(1, frames)]} if frames > 1 else {}
    photo.save(out, fmt, **more)
    return out.getvalue()


FILES = {name: encoded(name.upper()) for name in EXTENSIONS}
INSPECTOR = Inspector(list(EXTENSIONS), max_pixels=10**6, max_frames=3, min_short_edge=8)


@pytest.mark.parametrize("name", EXTENSIONS)
def test_every_format_that_may_be_allowed_is_read(name):
    inspected = INSPECTOR.inspect(FILES[name])
    assert (inspected.format, inspected.width, inspected.height) == (name, 64, 64)
    assert (inspected.phash ^ INSPECTOR.inspect(FILES["png"]).phash).bit_count() <= 6
    with pytest.raises(FetchRefused) as refused:
        Inspector(sorted(set(EXTENSIONS) - {name}), 10**6, 1, 8).inspect(FILES[name])
    assert refused.value.reason is Reason.NOT_AN_IMAGE


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(EXTENSIONS)), st.data())
def test_damaged_files_give_an_image_or_a_reason(name, data):
    body = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 6))):
        body[data.draw(st.integers(0, min(len(body) - 1, 400)))] = data.draw(st.integers(0, 255))
    body = bytes(body[: data.draw(st.integers(0, len(body)))])
    try:
        inspected = INSPECTOR.inspect(body)
    except FetchRefused as refused:
        assert refused.reason in {
            Reason.NOT_AN_IMAGE,
            Reason.DECODE,
            Reason.TOO_MANY_PIXELS,
            Reason.TOO_MANY_FRAMES,
            Reason.TOO_SMALL,
        }
    else:
        assert inspected.width * inspected.height <= 10**6 and 1 <= inspected.orientation <= 8


@given(st.integers(1, 6), st.integers(1, 8))
def test_gif_frames_are_counted_as_pillow_counts_them(frames, limit):
    rng = np.random.default_rng(frames)
    pictures = [Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)) for _ in range(frames)]
    out = io.BytesIO()
    pictures[0].save(out, "GIF", save_all=True, append_images=pictures[1:], comment=b"!,;" * 200)
    with Image.open(out) as image:
        assert gif_frames(out.getvalue(), limit) == min(image.n_frames, limit + 1)


@given(st.binary(max_size=200))
def test_counting_ends_on_any_bytes(data):
    assert 0 <= gif_frames(b"GIF89a" + data, 3) <= 4


def test_multi_picture_jpeg_counts_as_the_photograph_it_is():
    inspected = INSPECTOR.inspect(encoded("MPO", frames=5))
    assert inspected.format == "jpeg"


def test_pixels_are_refused_from_the_header_alone(monkeypatch):
    monkeypatch.setattr("stages.fetch.inspector.decode_rgb", lambda _: pytest.fail("decoded"))
    with pytest.raises(FetchRefused) as refused:
        Inspector(["png"], 64 * 64 - 1, 1, 8).inspect(FILES["png"])
    assert refused.value.reason is Reason.TOO_MANY_PIXELS


def test_perceptual_hash_uses_all_64_bits():
    values = [perceptual_hash(Image.fromarray(photographs.astronaut()[i::5, i::3])) for i in range(3)]
    assert all(0 <= value < 2**64 for value in values) and max(values) >= 2**63
