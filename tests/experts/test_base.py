from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from experts.base import bounded

SIDE = st.integers(1, 6000)


@given(SIDE, SIDE, st.sampled_from([64, 2048]), st.sampled_from([2.0, 4.0, 8.0]))
def test_bounded_is_within_both_limits_and_leaves_ordinary_images_alone(width, height, longest, aspect):
    image = Image.new("1", (width, height)).convert("L")
    out = bounded(image, longest, aspect)
    assert max(out.size) <= longest
    assert max(out.size) / min(out.size) <= aspect * 1.5  # rounding of the short side, at its smallest
    if max(image.size) <= longest and max(image.size) <= aspect * min(image.size):
        assert out is image
