"""The benchmark of the experts at its smallest: both sides compare, and it says where the time goes."""

import json

import pytest

from benchmarks.experts import __main__ as experts
from benchmarks.experts.cases import CASES


@pytest.mark.parametrize("expert", CASES)
def test_stage_and_bare_loop_say_the_same_and_the_time_is_accounted_for(capsys, expert):
    experts.main(["--json", "--images", "2", "--rounds", "1", "--native", "--expert", expert])
    answer = json.loads(capsys.readouterr().out)
    (comparison,) = answer["comparisons"]
    assert comparison["measured"] == f"perceive.{expert}" and comparison["amount"] == 2
    assert comparison["median_ratio"] > 0
    where = answer[expert]
    assert where["model_s"] + where["wait_s"] <= where["stage_s"] * 1.01
    assert all(where[name] > 0 for name in ("bare_s", "prepare_in_threads_s", "thread_cpu_s", "thread_ratio"))
    assert ("gflop_per_image" in where) == (expert != "ocr")


@pytest.mark.parametrize("expert", ["tags", "open_set"])
def test_full_size_input_costs_more(capsys, expert):
    words = ["--json", "--images", "1", "--rounds", "1", "--expert", expert]
    flops = []
    for size in ([], ["--native"]):
        experts.main([*words, *size])
        flops.append(json.loads(capsys.readouterr().out)[expert]["gflop_per_image"])
    assert flops[0] > 4 * flops[1]
