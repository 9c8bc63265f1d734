from dataclasses import replace

import pytest
import yaml
from huggingface_hub import DatasetCard

from schemas.summary import RunSummary, StageSummary
from stages.caption_figures import caption_metrics
from stages.card import CardSection, render_card, size_category

SUMMARY = RunSummary(
    name="cats-2026",
    stages=(
        StageSummary("ingest", 5000, 4000, {"stated_size": 900, "duplicate_url": 100}),
        StageSummary("download", 4000, 2500, {"http_status": 1400, "opted_out": 60, "refused_robots": 40}),
        StageSummary("perceive.ocr", 2500, 2500),
        StageSummary("caption", 2500, 2400, {"caption_rejected": 100}),
        StageSummary("package", 2400, 2400),
    ),
    sources=("laion.parquet",),
    models={"embed": "org/clip@abc", "caption": "org/llava|x@1"},
    prompt_version="densefusion-1",
    engine="vllm 0.32",
    notes=("Captions are noise: the model's weights are random.",),
)


def test_front_matter_is_what_the_hub_reads() -> None:
    front = DatasetCard(render_card(SUMMARY, CardSection(license="cc-by-4.0", tags=["cats"]))).data.to_dict()
    assert front["license"] == "cc-by-4.0"
    assert front["task_categories"] == ["image-to-text"]
    assert front["size_categories"] == ["1K<n<10K"]
    assert front["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.tar"}]}]
    assert "cats" in front["tags"]


def test_the_card_tells_the_funnel_the_opt_outs_the_models_and_the_notes() -> None:
    text = render_card(SUMMARY, CardSection(notes=["Faces are not blurred."], contact="removal@example.org"))
    assert "| download | 4,000 | 2,500 | http_status 1,400, opted_out 60, refused_robots 40 |" in text
    assert "perceive.ocr |" not in text.split("## What made it")[0]
    assert "100 rows were left out because" in text
    assert "| embed | `org/clip@abc` |" in text and "| caption prompt | `densefusion-1` |" in text
    assert "- Captions are noise: the model's weights are random.\n- Faces are not blurred.\n" in text
    assert "write to removal@example.org" in text
    assert "2,400 images with long captions, out of 5,000 rows" in text and "(laion.parquet)" in text


def test_the_card_shows_the_captions_in_figures_beside_the_published_ones() -> None:
    counted = StageSummary("package", 1, 1, metrics=caption_metrics(["a"], ["Two cats sleep near a tree. They dream."]))
    run = replace(SUMMARY, name="cats|2026", stages=(*SUMMARY.stages[:-1], counted))
    lines = render_card(run, CardSection()).splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("| dataset | characters |"))
    assert lines[first + 1].count("---") == lines[first].count("|") - 1
    assert lines[first + 2] == "| cats\\|2026 | 39 | 8 | 2.0 | 25.0 % | 0.0 % | 0.0 % | 25.0 % | 12.5 % |"
    assert lines[first + 3].startswith("| DenseFusion-4V-100K | 1,253 | 206 | 11.2 | 27.9 % |")
    assert lines[first + 4].endswith("| 12.0 % | 0.85 % |") and lines[first + 5] == ""
    german = render_card(replace(run, languages=("de",)), CardSection(language=["de"]))
    assert "| 39 | 8 | 2.0 | – | – | – | – | – |" in german and "said to be in de." in german


def test_the_card_tells_what_the_checks_found_in_the_captions_that_are_there() -> None:
    found = {"captions_checked": 50.0, "captions_kept": 40.0, "findings_first": 20.0, "findings_last": 20.0}
    found |= {"repairs_asked": 0.0, "faulty_last": 18.0, "faulty_kept": 8.0, "repetition_last": 10.0}
    found |= {"wrong_side_last": 8.0, "wrong_side_kept": 8.0}

    def card(metrics: dict[str, float]) -> str:
        captioned = StageSummary("caption", 50, 40, metrics=metrics)
        *before, _, package = SUMMARY.stages
        return render_card(replace(SUMMARY, stages=(*before, captioned, package)), CardSection())

    lines = card(found).split("## What the checks found\n\n")[1].splitlines()
    assert lines[2:5] == ["| wrong_side | 8 | 20.0 % |", "| any finding | 8 | 20.0 % |", ""]
    assert lines[5].startswith("Of the 40 captions that were not rejected.")
    assert "Nothing, in any of the 40 captions" in card(found | {"faulty_kept": 0.0})
    assert "What the checks found" not in card({}) + card(found | {"captions_kept": 0.0})


def test_the_card_is_silent_about_captions_that_were_not_counted() -> None:
    assert "Captions in figures" not in render_card(SUMMARY, CardSection())


def test_the_card_says_that_there_is_no_contact() -> None:
    assert "No contact for removal requests is stated" in render_card(SUMMARY, CardSection())


def test_a_title_cannot_break_the_front_matter() -> None:
    text = render_card(SUMMARY, CardSection(title="a: b\n---\nlicense: mit"))
    assert yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))["license"] == "other"


def test_it_is_the_same_each_time() -> None:
    assert render_card(SUMMARY, CardSection()) == render_card(SUMMARY, CardSection())


@pytest.mark.parametrize(
    ("samples", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**6, "1M<n<10M"), (10**7, "10M<n<100M"), (10**9, "n>100M")],
)
def test_size_categories(samples: int, category: str) -> None:
    assert size_category(samples) == category
