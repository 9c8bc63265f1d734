from pathlib import Path

from pipeline.reference import reference


def test_the_page_is_what_the_sections_say() -> None:
    page = Path(__file__).parents[2] / "docs" / "configuration.md"
    assert page.read_text() == reference(), "make it anew: python -m pipeline.reference > docs/configuration.md"
    assert "None" not in reference()
