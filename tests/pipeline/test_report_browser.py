"""The report in a real browser: nothing is loaded, nothing runs, switches work, and it fits a phone."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from skimage import data as photographs

from pipeline.finish import sweep_dedup
from pipeline.report.build import ReportSample, render_report
from pipeline.report.curation import curation
from pipeline.store import CommittedImages
from schemas.summary import RunSummary, StageSummary
from stages.caption_figures import caption_metrics
from tests.fakes.pictured_run import Pictured, pictured_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; `make test` installs it where it may"),
]

ATTACK = "<script>window.hit=1</script><img src=x onerror='window.hit=1'>\"><svg onload=window.hit=1>"
SUMMARY = RunSummary(
    name="cats-2026",
    stages=(
        StageSummary("ingest", 3000, 2000, {"stated_size": 700, "duplicate_url": 200, "unsafe": 100}, 1, 1, seconds=3),
        StageSummary(
            "download",
            2000,
            1100,
            {"http_status": 620, "dns": 140, "timeout": 60, "opted_out": 40, "decode": 25, "refused_robots": 15},
            shards=4,
            committed=4,
            seconds=812.5,
            workers=2,
            bytes=240_000_000,
            peak_memory=410_000_000,
            retries=1,
            metrics={"bytes_fetched": 260_000_000.0},
        ),
        StageSummary("embed", 1100, 1100, {}, 4, 4, seconds=95, workers=1, bytes=1_200_000, peak_memory=900_000_000),
        StageSummary("dedup", 1100, 850, {"duplicate_exact": 90, "duplicate_semantic": 160}, 4, 4, seconds=2),
        StageSummary("select", 850, 400, {"not_selected": 450}, 4, 4, seconds=0.4),
        StageSummary("perceive.ocr", 400, 400, {}, 4, 4, seconds=350, workers=1, bytes=150_000),
        StageSummary("perceive.depth", 400, 400, {}, 4, 4, seconds=280, workers=1, bytes=9_000_000),
        StageSummary(
            "caption",
            400,
            380,
            {"caption_rejected": 20},
            shards=4,
            committed=3,
            failed=1,
            seconds=2100,
            workers=1,
            retries=3,
            metrics={
                "answers_asked": 460.0,
                "repairs_asked": 60.0,
                "captions_checked": 400.0,
                "captions_kept": 380.0,
                "findings_first": 90.0,
                "findings_last": 70.0,
                "faulty_first": 80.0,
                "faulty_last": 60.0,
                "faulty_kept": 40.0,
                "text_left_out_first": 60.0,
                "text_left_out_last": 40.0,
                "text_left_out_kept": 40.0,
                "repetition_first": 20.0,
                "repetition_last": 20.0,
            },
        ),
        StageSummary(
            "package",
            380,
            380,
            {},
            shards=4,
            committed=3,
            seconds=4,
            workers=1,
            bytes=80_000_000,
            metrics=caption_metrics(
                [f"{i:032x}" for i in range(380)], ["Two cats sleep on a very old red sofa. "] * 380
            ),
        ),
    ),
    sources=("laion-sample.parquet",),
    models={"embed": "org/clip@abc", "perceive.ocr": "rapidocr PP-OCRv4", "caption": "folder:0123456789abcdef" * 4},
    prompt_version="densefusion-1",
    engine="vllm 0.32, CPU",
    notes=("The captions are noise: the captioning model has random weights.",),
    allow_hosts=("127.0.0.1:8123",),
)


def sample(name: str, **changes: object) -> ReportSample:
    pixels = getattr(photographs, name)()
    height, width = pixels.shape[:2]
    raw = io.BytesIO()
    Image.fromarray(pixels).save(raw, "jpeg")
    ramp = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    depth = io.BytesIO()
    Image.fromarray(ramp).save(depth, "png")

    def box(label: str, *corners: float) -> dict[str, object]:
        return {"label": label, "score": 0.87, "anchor": 0, **dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True))}

    values: dict[str, object] = {
        "uid": "0123456789abcdef0123456789abcdef",
        "url": f"https://pictures.example.org/a/rather/long/path/{name}.jpg?width=1024&height=768",
        "image": raw.getvalue(),
        "width": width,
        "height": height,
        "priors": {
            "tags": {"tags": [{"tag": "portrait", "score": 0.93}, {"tag": "flag", "score": 0.6}], "error": None},
            "boxes_closed": {"boxes": [box("person", 0.2, 0.05, 0.75, 0.98), box("tie", 0.4, 0.5, 0.5, 0.7)]},
            "boxes_open": {"boxes": [box("space suit", 0.15, 0.45, 0.85, 0.99)], "error": None},
            "ocr": {
                "lines": [{"text": "NASA", "score": 0.9, "polygon": [0.5, 0.6, 0.62, 0.62, 0.61, 0.67, 0.49, 0.65]}]
            },
            "depth": {"disparity_png": depth.getvalue(), "disparity_min": 0.0, "disparity_max": 1.0, "error": None},
            "florence": {"caption": "A person looks at the camera.", "lines": [], "regions": [], "error": None},
        },
        "caption": "The picture shows a smiling person in an orange suit in front of a flag. " * 5,
        "alt_text": "official portrait, 1999",
        "findings": [{"kind": "ocr", "detail": "“NASA” was read and is not quoted"}],
    }
    return ReportSample(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Pictured:
    return pictured_run(tmp_path_factory.mktemp("look") / "run")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, run: Pictured) -> Path:
    hostile = sample(
        "coffee",
        uid=ATTACK,
        url=f"https://example.org/{ATTACK}",
        caption=ATTACK,
        alt_text=ATTACK,
        findings=[{"kind": ATTACK, "detail": ATTACK}],
        priors={
            "tags": {"tags": [{"tag": ATTACK, "score": 1.0}]},
            "boxes_open": {
                "boxes": [{"label": ATTACK, "score": 1.0, "anchor": 0, "x1": 0.0, "y1": 0.0, "x2": 1.0, "y2": 1.0}]
            },
            "ocr": {"lines": [{"text": ATTACK, "score": 1.0, "polygon": [0, 0, 1, 0, 1, 1, 0, 1]}], "error": ATTACK},
        },
    )
    broken = sample("rocket", image=b"not an image", alt_text=None, findings=[], priors={})
    out = tmp_path_factory.mktemp("report") / "index.html"
    part = curation(
        run.store, CommittedImages(run.store), run.config.dedup, True, {"recall_rows": 0.998, "recall_rows_of": 400}
    )
    samples = [sample("astronaut"), sample("chelsea", repaired=True), hostile, broken]
    out.write_text(render_report(SUMMARY, samples, part, [sample("chelsea", uid="c" * 32)]))
    return out


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    """The opened report; afterwards: no request but for the file itself, and no complaint in the console."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    requests: list[str] = []
    complaints: list[str] = []
    opened.on("request", lambda r: requests.append(r.url) if not r.url.startswith("data:") else None)
    opened.on("console", lambda m: complaints.append(m.text))
    opened.on("pageerror", lambda e: complaints.append(str(e)))
    opened.goto(report.as_uri())
    yield opened
    context.close()
    assert requests == [report.as_uri()]
    assert complaints == []


def test_every_picture_is_shown(page: Page) -> None:
    sizes = page.eval_on_selector_all("article img", "all => all.map(i => [i.naturalWidth, i.alt.length])")
    # Four photographs that decode, three depth maps; the hostile sample has none and the broken one says so.
    assert len(sizes) == 7 and all(width > 0 and alt > 0 for width, alt in sizes)
    assert page.get_by_text("its bytes do not decode").count() == 1


def test_pairs_stand_side_by_side_and_every_tile_is_shown(page: Page) -> None:
    tiles = page.eval_on_selector_all(".tile img", "all => all.map(i => [i.naturalWidth, i.alt.length])")
    assert len(tiles) > 60 and all(width > 0 and alt > 0 for width, alt in tiles)
    left, right = (page.locator(".pairs .two").first.locator("img").nth(n).bounding_box() for n in (0, 1))
    assert left is not None and right is not None
    assert (left["y"], left["width"]) == (right["y"], right["width"]) and left["x"] + left["width"] < right["x"]


@pytest.mark.parametrize("width", [360, 800, 1280])
def test_the_page_of_the_sweep_fits_and_loads_nothing(browser: Browser, run: Pictured, width: int) -> None:
    answer = sweep_dedup(run.config, str(run.folder), [0.01, 0.1], 1000)
    opened = browser.new_page(viewport={"width": width, "height": 800})
    requests: list[str] = []
    opened.on("request", lambda r: requests.append(r.url) if not r.url.startswith("data:") else None)
    opened.goto(Path(answer["page"]).as_uri())
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
    assert requests == [Path(answer["page"]).as_uri()]
    opened.close()


def test_text_of_the_web_is_shown_and_does_nothing(page: Page) -> None:
    assert page.evaluate("window.hit") is None
    article = page.locator("article").nth(2)
    assert article.locator(".caption").inner_text() == ATTACK
    assert article.locator("script, img[src=x], svg[onload]").count() == 0
    assert page.locator("a").count() == 0


def test_scripts_would_not_run_even_if_one_came_in(browser: Browser, report: Path, tmp_path: Path) -> None:
    poisoned = tmp_path / "poisoned.html"
    poisoned.write_text(report.read_text().replace("<footer>", "<script>window.hit = 1</script><footer>"))
    opened = browser.new_page()
    opened.goto(poisoned.as_uri())
    assert opened.evaluate("window.hit") is None
    opened.close()


def test_switches_hide_one_expert_without_any_script(page: Page) -> None:
    ocr = page.get_by_label("ocr")
    shown = page.locator("svg g[class]:visible polygon")
    before = shown.count()
    number = str(ocr.get_attribute("id")).removeprefix("layer-")
    polygons = page.locator(f"g.layer-{number} polygon").count()
    assert polygons > 0 and page.locator(f".label.layer-{number}").first.is_visible()
    assert page.locator("label", has=ocr).evaluate("e => getComputedStyle(e).textDecorationLine") == "none"
    ocr.uncheck()
    assert shown.count() == before - polygons
    assert not page.locator(f".label.layer-{number}").first.is_visible()
    ocr.check()
    assert shown.count() == before


def test_boxes_lie_where_the_expert_saw_them(page: Page) -> None:
    figure = page.locator("figure.picture").first
    frame = figure.bounding_box()
    box = figure.locator("polygon").first.bounding_box()
    assert frame is not None and box is not None  # the box with its stroke of 2 px
    left, top = (box["x"] - frame["x"]) / frame["width"], (box["y"] - frame["y"]) / frame["height"]
    assert left == pytest.approx(0.2, abs=0.02) and top == pytest.approx(0.05, abs=0.02)
    assert box["width"] / frame["width"] == pytest.approx(0.55, abs=0.02)


def test_the_funnel_is_to_scale_and_names_the_reasons(page: Page) -> None:
    bars = page.locator(".funnel > li")
    assert bars.locator(".name").all_inner_texts() == [s.name for s in SUMMARY.funnel]
    whole = bars.nth(1).locator(".bar").bounding_box()
    kept = bars.nth(1).locator(".kept").bounding_box()
    assert whole is not None and kept is not None
    assert kept["width"] / whole["width"] == pytest.approx(1100 / 3000, abs=0.005)
    reasons = " ".join(bars.nth(1).locator(".reasons").inner_text().split())
    assert reasons == "http_status 620 dns 140 timeout 60 opted_out 40 decode 25 refused_robots 15"


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_screen(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


# The element with text whose colour is nearest to its background, as [contrast ratio of WCAG 2, its source].
_WEAKEST_CONTRAST = """() => {
  const channel = v => v / 255 <= .03928 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
  const light = css => {
    const [r, g, b] = css.match(/[\\d.]+/g).map(Number).map(channel);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = e => {
    for (; e; e = e.parentElement) {
      const css = getComputedStyle(e).backgroundColor;
      if (css !== 'rgba(0, 0, 0, 0)') return css;
    }
    return 'rgb(255, 255, 255)';
  };
  const hasText = e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  const contrast = e => {
    const [low, high] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => x - y);
    return [(high + .05) / (low + .05), e.outerHTML.slice(0, 80)];
  };
  const shown = [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && !e.closest('svg'));
  return shown.filter(hasText).map(contrast).sort((x, y) => x[0] - y[0])[0];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    weakest = page.evaluate(_WEAKEST_CONTRAST)
    assert weakest[0] >= 4.5, weakest
