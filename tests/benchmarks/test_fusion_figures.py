"""The captioner does not fall below what it reached on validation; the table has every part."""

from benchmarks.fusion import captioner
from benchmarks.fusion.__main__ import page, tables


def test_the_captioner_keeps_its_figures() -> None:
    """40 scenes; floors below what other scenes gave."""
    answer = captioner.measure(40, 10_000, priors="measured")
    value = {name: {one: f["value"] for one, f in found.items()} for name, found in answer["captioners"].items()}
    noted, bare, listed = value["with"], value["without"], value["list"]
    assert noted["object_f1"] > 0.87
    assert noted["object_f1"] > bare["object_f1"] > 0.6
    assert noted["category_f1"] > listed["category_f1"]
    assert noted["text_copied"] > 0.8
    assert noted["false_claims_repeated"] < 0.1
    assert noted["false_boxes_repeated"] < 0.4
    assert {one["words"] for one in answer["targets"] if not one["met"]} <= {
        "objects, class and colour: F1: with > list > without",
        "objects, class alone: F1: with > list > without",
    }


def test_the_page_has_every_table() -> None:
    figure = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    spread = {"mean": 0.5, "low": 0.4, "high": 0.6}
    figures = dict.fromkeys(captioner.MEASURES, figure)
    captioners = {"with": figures, "without": figures, "list": {"category_f1": figure, "object_f1": figure}}
    answer = {
        "parity": {"mlp": 0.0, "sti siglip": 2.4e-6},
        "captioner": {
            "setting": {"scenes": 3, "first": 0},
            "captioners": captioners,
            "targets": [vars(one) for one in captioner.targets(dict.fromkeys(captioners, figures))],
        },
        "connectors": {
            "budget": {"steps": 80, "batch": 32, "test": 200},
            "connectors": {
                "mlp": {
                    "seeds": [0, 1],
                    "tokens": 100,
                    "trained": 1_500_000,
                    "loss": spread,
                    "with": {"object_f1": spread},
                    "without": {"object_f1": spread},
                }
            },
        },
        "serving": {
            "connectors": [
                {"connector": "mlp", "identical": 8, "prompts": 8, "tokens": 48, "max_logprob_difference": 1e-6}
            ]
        },
    }
    shown = tables(answer)
    assert [len({len(row) for row in rows}) for rows in shown.values()] == [1] * 5
    met = {words: yes for words, yes, _ in shown["What was to be reached"]}
    assert met["connectors, from the authors' own: at most 1e-05"] == "yes"
    text = page(answer)
    assert "0.500 (0.400-0.600)" in text and "| mlp | 8/8 | 1.0e-06 |" in text
    assert max(map(len, text.splitlines())) < 400
