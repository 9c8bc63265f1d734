"""The dataset card: what was taken, what was left out and why, what made the captions, and whom to ask for removal."""

from pathlib import Path

import yaml
from pydantic import Field

from schemas.section import Section
from schemas.summary import RunSummary
from stages.caption_figures import caption_table
from stages.caption_findings import findings_table
from stages.markdown import markdown_environment
from stages.numbers import count, percent

# The Hub's own steps for `size_categories`.
_SIZES = [("n<1K", 1_000), ("1K<n<10K", 10_000), ("10K<n<100K", 100_000), ("100K<n<1M", 1_000_000), ("1M<n<10M", 10**7)]


class CardSection(Section):
    """What the card says beyond the run's own figures."""

    title: str | None = Field(None, max_length=200, description="title of the dataset; null takes the run's name")
    summary: str = Field("", description="first paragraph: what the dataset is for")
    license: str = Field(
        "other", description="the Hub's identifier of the dataset's licence; the images keep their own"
    )
    language: list[str] = Field(["en"], description="languages of the captions, ISO 639-1")
    tags: list[str] = Field([], description="further tags for the Hub's search")
    notes: list[str] = Field([], description="known losses and warnings, one sentence each, beside the run's own notes")
    contact: str | None = Field(
        None, description="address or URL for removal requests; the card tells that there is none where it is null"
    )


def size_category(samples: int) -> str:
    """The Hub's size category of a dataset with so many samples."""
    return next((name for name, limit in _SIZES if samples < limit), "10M<n<100M" if samples < 10**8 else "n>100M")


def render_card(summary: RunSummary, section: CardSection) -> str:
    """The card as Markdown with the Hub's YAML front matter; the same input gives the same text."""
    front = {
        "pretty_name": section.title or summary.name,
        "license": section.license,
        "language": section.language,
        "task_categories": ["image-to-text"],
        "size_categories": [size_category(summary.samples)],
        "tags": ["webdataset", "image-captioning", "densefusion", *section.tags],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.tar"}]}],
    }
    environment = markdown_environment(Path(__file__).parent)
    environment.filters["cell"] = lambda value: " ".join(str(value).split()).replace("|", "\\|")
    environment.filters.update(count=count, percent=percent)
    return environment.get_template("card.md.j2").render(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(),
        title=section.title or summary.name,
        run=summary,
        captions=caption_table(summary),
        findings=findings_table(summary),
        card=section,
        notes=[*summary.notes, *section.notes],
    )
