"""The quick form of every part of the curation benchmark: what must be exact is."""

import importlib
import json

import pytest

from benchmarks.curation.__main__ import main
from benchmarks.curation.parts import PARTS

EXACT = {"border": 8, "hashes": 2}
"""How many figures of a part must be exact, where a test of its own says what they rest on."""


@pytest.mark.parametrize("part", [part for part in PARTS if part != "embedding"])  # see test_benchmarks
def test_what_must_be_exact_is(part):
    figures = importlib.import_module(f"benchmarks.curation.{part}").measure(quick=True)
    assert figures
    exact = [figure for figure in figures if figure.exact]
    assert len(exact) == EXACT.get(part, len(exact))
    assert all(figure.reached for figure in exact)


def test_an_earlier_answer_makes_the_page_again(tmp_path, capsys):
    page, earlier = tmp_path / "page.md", tmp_path / "answer.json"
    main(["--only", "ranking", "--quick", "--json"])
    earlier.write_text(capsys.readouterr().out)
    main(["--only", "--from", str(earlier), "--json", "--page", str(page)])
    assert json.loads(capsys.readouterr().out)["parts"].keys() == {"ranking"}
    text = page.read_text()
    assert "The order inside clusters" in text and "quick form" in text and "| 1,000,000,000 | 64 |" in text
