import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data as photographs

from pipeline.report.build import ReportSample, render_report
from pipeline.report.overlays import shapes
from pipeline.report.pictures import disparity_uri, thumbnail_uri
from schemas.summary import RunSummary, StageSummary
from stages.caption_figures import caption_metrics
from tests.photographs import encoded

SUMMARY = RunSummary("tiny", (StageSummary("ingest", 10, 8, {"no_url": 2}), StageSummary("package", 8, 8)))


def decoded(uri: str) -> Image.Image:
    kind, data = uri.split(",", 1)
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def sample(priors: dict[str, dict[str, object]] | None = None, caption: str = "A rocket.") -> ReportSample:
    image = Image.fromarray(photographs.rocket())
    return ReportSample(
        "ab" * 16, "https://example.org/r.png", encoded(image), image.width, image.height, priors or {}, caption
    )


def boxes(n: int) -> list[dict[str, object]]:
    return [
        {"label": f"thing {i}", "score": 0.5, "anchor": i, "x1": 0.1, "y1": 0.1, "x2": 0.2, "y2": 0.2} for i in range(n)
    ]


def test_a_run_without_samples_has_a_report() -> None:
    assert "No sample is finished yet." in render_report(SUMMARY, [])


def test_a_run_without_stages_has_a_report() -> None:
    assert "empty" in render_report(RunSummary("empty", ()), [])


def test_the_page_names_no_address_to_load_from() -> None:
    prior = {"boxes": boxes(2), "error": None}
    html = render_report(SUMMARY, [sample({"boxes_closed": prior})])
    assert all(value.startswith("data:") for value in re.findall(r"""(?:src|href)=["']?([^"'\s>]+)""", html))
    assert "url(" not in html and "@import" not in html and "<script" not in html


def test_it_stays_small() -> None:
    rng = np.random.default_rng(0)
    noise = encoded(Image.fromarray(rng.integers(0, 255, (2000, 3000, 3), np.uint8)))
    large = ReportSample("cd" * 16, "https://example.org/", noise, 3000, 2000, {}, "Noise.")
    assert len(render_report(SUMMARY, [large])) < 600_000 < len(noise)


def test_the_same_run_gives_the_same_page() -> None:
    assert render_report(SUMMARY, [sample()]) == render_report(SUMMARY, [sample()])


def test_many_boxes_do_not_hide_the_image_and_are_all_listed() -> None:
    html = render_report(SUMMARY, [sample({"boxes_closed": {"boxes": boxes(60), "error": None}})])
    assert html.count("<polygon") == 20
    assert "thing 59" in html


def test_depths_scores_and_experts_of_ones_own_are_shown() -> None:
    near = {"expert": "closed_set", "anchor": 3, "nearness": 0.9, "band": "near"}
    again = {"expert": "open_set", "anchor": 0, "nearness": 0.8, "band": "near"}
    unseen = {"expert": "open_set", "anchor": 7, "nearness": 0.1, "band": "far"}
    priors: dict[str, dict[str, object]] = {
        "closed_set": {"boxes": [{**box, "anchor": 3, "label": "kettle"} for box in boxes(1)], "error": None},
        "open_set": {"boxes": [{**box, "anchor": 0, "label": "kettle"} for box in boxes(1)], "error": None},
        "depth": {"disparity_png": None, "objects": [near, again, unseen], "error": None},
        "sharpness": {"variance": 93.25, "blurred": False, "error": None},
    }
    html = render_report(SUMMARY, [replace(sample(priors), scores={"aesthetic": 5.5})])
    assert re.search(
        r"From near to far</h3>\s*<ul class=\"chips\"><li>kettle <span class=\"soft\">near</span></li></ul>", html
    )
    assert re.search(
        r"sharpness</h3>\s*<ul[^>]*><li>variance <span[^>]*>93.25</span></li><li>blurred <span[^>]*>False", html
    )
    assert re.search(r"aesthetic</h3>\s*<ul[^>]*><li>score <span[^>]*>5.5</span>", html)


def test_captions_are_shown_in_figures_where_they_were_counted() -> None:
    counted = StageSummary("package", 1, 1, metrics=caption_metrics(["a"], ["Two cats sleep near a tree. They dream."]))
    run = RunSummary("a<b", (counted,))
    html = " ".join(render_report(run, []).split())
    cells = "".join(f"<td>{cell}</td>" for cell in ["39", "8", "2.0", "25.0 %", "0.0 %", "0.0 %", "25.0 %", "12.5 %"])
    assert f'<tr class="own"><th scope="row">a&lt;b</th>{cells}</tr>' in html
    assert '<th scope="row">DenseFusion-1M</th><td>1,130</td>' in html
    assert "means of 1 captions, and each class's share of the words of 1 of them" in html
    german = " ".join(render_report(replace(run, languages=("de", "fr")), []).split())
    assert "<td>2.0</td><td>–</td>" in german and "said to be in de, fr." in german
    assert "Captions in figures" not in render_report(SUMMARY, [])


def test_an_unfinished_run_says_so() -> None:
    run = RunSummary("half", (StageSummary("ingest", 10, 8, {}, shards=4, committed=3),))
    assert "shards to do: 1" in render_report(run, [])


def test_thumbnails_show_the_image_as_a_person_sees_it() -> None:
    image = Image.fromarray(photographs.rocket())
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    image.rotate(90, expand=True).save(turned, "jpeg", exif=exif, quality=95)
    uri = thumbnail_uri(turned.getvalue())
    assert uri is not None
    small = decoded(uri)
    assert small.size == image.size
    difference = np.abs(np.asarray(small, float) - np.asarray(image, float)).mean()
    assert difference < 8


def test_depth_is_brighter_where_nearer() -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    grey = np.asarray(decoded(disparity_uri(encoded(Image.fromarray(ramp)))).convert("L"), float)
    rows = grey.mean(axis=1)
    assert rows[-1] - rows[0] > 180
    assert (np.diff(rows) > -2).all()


@given(
    st.lists(
        st.fixed_dictionaries(
            {"label": st.text(), "score": st.floats(0, 1)} | {k: st.floats(0, 1) for k in ("x1", "y1", "x2", "y2")}
        )
    )
)
def test_every_box_becomes_a_shape_in_percent(found: list[dict[str, object]]) -> None:
    drawn = shapes({"boxes": found})
    assert [s.label for s in drawn] == [b["label"] for b in found]
    for shape in drawn:
        numbers = [float(n) for pair in shape.points.split() for n in pair.split(",")]
        assert len(numbers) == 8 and all(0 <= n <= 100 for n in numbers)
        assert shape.left == pytest.approx(min(numbers[::2]), abs=0.01)


def test_an_expert_that_states_no_scores_shows_none() -> None:
    box = boxes(1)
    assert shapes({"caption": "x", "lines": [], "regions": box})[0].score is None
    assert shapes({"boxes": box})[0].score == 0.5


def test_it_says_how_the_captions_came_about() -> None:
    metrics = {"answers_asked": 90.0, "answers_taken_over": 20.0, "repairs_asked": 10.0, "repaired": 7.0}
    metrics |= {"prompt_tokens": 50_000.0, "completion_tokens": 20_000.0, "engine_seconds": 45.0}
    metrics |= {"prefix_tokens": 9_000.0, "prefix_cached_tokens": 8_910.0, "prompts_cut": 0.0, "engine_restarts": 2.0}
    html = render_report(RunSummary("r", (StageSummary("caption", 100, 98, metrics=metrics),)), [])
    for words in (
        "90 times; 20 answers were there from before",
        "500 of prompt, 200 of answer",
        "2, one worker",
        "99.0% served by the prefix cache",
        "10 asked for, 7 better",
    ):
        assert words in html
    assert "prompts cut to fit" not in html
    assert 'id="captioning"' not in render_report(SUMMARY, [])


FOUND = {"captions_checked": 50.0, "captions_kept": 49.0, "findings_first": 20.0, "findings_last": 10.0}
FOUND |= {"faulty_first": 12.0, "faulty_last": 8.0, "faulty_kept": 7.0, "findings_kept": 9.0, "repairs_asked": 12.0}
FOUND |= {"wrong_side_first": 12.0, "wrong_side_last": 7.0, "wrong_side_kept": 7.0}
FOUND |= {"repetition_first": 1.0, "repetition_last": 1.0}


def cells(html: str, section: str) -> list[list[str]]:
    """Of the table under a heading, row by row."""
    table = html.split(f'id="{section}"')[1].split("</table>")[0]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr")[1:]]
    return [row for row in rows if row]


def test_it_says_what_the_checks_found() -> None:
    html = render_report(RunSummary("r", (StageSummary("caption", 50, 49, metrics=FOUND),)), [])
    assert cells(html, "findings") == [
        ["captions with", "before repairs", "after repairs", "of all checked", "not rejected"],
        ["wrong_side", "12", "7", "14.0 %", "7"],
        ["repetition", "1", "1", "2.0 %", "0"],
        ["any finding", "12", "8", "16.0 %", "7"],
    ]
    assert "50 captions were checked; 0.20 findings a caption, 0.40 before the repairs; rejected: 1." in html


def test_it_says_so_where_the_checks_found_nothing() -> None:
    clean = {"captions_checked": 5.0, "captions_kept": 5.0, "findings_first": 0.0, "findings_last": 0.0}
    clean |= {"repairs_asked": 0.0}
    html = render_report(RunSummary("r", (StageSummary("caption", 5, 5, metrics=clean),)), [])
    assert "5 captions were checked; 0.00 findings a caption." in html and "captions with" not in html
    assert 'id="findings"' not in render_report(SUMMARY, [])
