"""Each benchmark at its smallest: the shape of its answer, and that what it holds against each other compares."""

import json
import os

import pytest

from benchmarks import embed, fetch
from benchmarks.comparison import Comparison, Round, compare
from schemas.errors import ContractError


def answer_of(main, capsys, *arguments):
    main(["--json", *arguments])
    answer = json.loads(capsys.readouterr().out)
    assert answer["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert all(answer["machine"]["libraries"].values())
    return answer


def check_comparison(comparison, amount, rounds):
    assert comparison["amount"] == amount
    assert [r["first"] for r in comparison["rounds"]] == ["measured", "against"][:rounds]
    for r in comparison["rounds"]:
        assert all(value > 0 for value in r.values() if isinstance(value, float))
        assert r["ratio"] == pytest.approx(r["measured_rate"] / r["against_rate"])
        assert r["measured_rate"] == pytest.approx(amount / r["measured_s"])
    ratios = sorted(r["ratio"] for r in comparison["rounds"])
    assert ratios[0] <= comparison["median_ratio"] <= ratios[-1]


def test_fetch(capsys):
    answer = answer_of(fetch.main, capsys, "--images", "6", "--rounds", "2")
    assert answer["benchmark"] == "fetch"
    assert (answer["setting"]["images"], answer["setting"]["threads"]) == (6, 32)
    assert answer["setting"]["bytes"] > 6 * 10_000
    assert len(answer["comparisons"]) == 2
    for comparison in answer["comparisons"]:
        check_comparison(comparison, 6, 2)


def test_embed(capsys, small_weights):
    model = str(small_weights["clip"])
    words = ["--images", "5", "--rounds", "1", "--model", model, "--precision", "float32", "--batches"]
    answer = answer_of(embed.main, capsys, *words)
    assert answer["benchmark"] == "embed"
    (comparison,) = answer["comparisons"]
    check_comparison(comparison, 5, 1)
    for way in ("scaled", "whole"):
        shares = [share for name, share in answer[f"steps_alone_{way}"].items() if name.endswith("_share")]
        assert len(shares) == 3 and min(shares) > 0 and sum(shares) == pytest.approx(1)
    assert answer["scaled_against_whole"]["least_cosine"] > 0.99
    assert answer["model"]["share_of_gemm"] > 0 and answer["model"]["mfu"] is None
    assert set(answer["images_per_s_by_batch"]) == {"1", "2", "4", "8", "16", "32", "64"}

    embed.main(["--images", "1", "--rounds", "1", "--model", model])
    printed = capsys.readouterr().out
    assert "the embed stage against the bare model loop" in printed and "decode_share" in printed


def test_a_model_that_cannot_be_had_is_said_in_words(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        embed.main(["--images", "1", "--model", str(tmp_path / "none")])
    assert ended.value.code == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--images", "--rounds"])
def test_nothing_cannot_be_measured(capsys, option):
    with pytest.raises(SystemExit):
        fetch.main([option, "0"])
    assert "0 is below 1" in capsys.readouterr().err


def test_ratios_are_of_rates():
    slower = Round("measured", measured_s=4, against_s=1, measured_cpu_s=2, against_cpu_s=1)
    faster = Round("against", measured_s=1, against_s=2, measured_cpu_s=1, against_cpu_s=1)
    answer = Comparison("one", "another", 8, "rows", [slower, faster, slower]).as_json()
    assert [(r["measured_rate"], r["against_rate"]) for r in answer["rounds"]] == [(2, 8), (8, 4), (2, 8)]
    assert [r["ratio"] for r in answer["rounds"]] == [0.25, 2, 0.25]
    assert (answer["median_ratio"], answer["median_cpu_ratio"]) == (0.25, 0.5)


def test_sides_take_turns_after_a_first_time_each():
    calls = []
    rounds = compare(lambda: lambda: calls.append("a"), lambda: lambda: calls.append("b"), lambda *_: True, rounds=3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert [r.first for r in rounds] == ["measured", "against", "measured"]


def test_sides_that_did_other_work_do_not_compare():
    with pytest.raises(ContractError, match="different results"):
        compare(lambda: lambda: 1, lambda: lambda: 2, lambda ours, theirs: ours == theirs, rounds=1)
