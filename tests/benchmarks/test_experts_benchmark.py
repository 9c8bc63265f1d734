"""The benchmark of the experts at its smallest: both sides compare, and it says where the time goes."""

import contextlib
import functools
import io
import json

import pytest

from benchmarks.experts import __main__ as experts
from benchmarks.experts.cases import CASES

NATIVE = ("--native",)


@functools.cache
def answer_at(size, expert, images):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        experts.main(["--json", "--images", str(images), "--rounds", "1", "--expert", expert, *size])
    return json.loads(printed.getvalue())


@pytest.mark.parametrize("expert", CASES)
def test_stage_and_bare_loop_say_the_same_and_the_time_is_accounted_for(expert):
    answer = answer_at(NATIVE, expert, 2)
    (comparison,) = answer["comparisons"]
    assert comparison["measured"] == f"perceive.{expert}" and comparison["amount"] == 2
    assert comparison["median_ratio"] > 0
    where = answer[expert]
    assert where["model_s"] + where["wait_s"] <= where["stage_s"] * 1.01
    assert all(where[name] > 0 for name in ("bare_s", "prepare_in_threads_s", "thread_cpu_s", "thread_ratio"))
    assert ("gflop_per_image" in where) == (expert != "ocr")


@pytest.mark.parametrize("expert", ["tags", "open_set"])
def test_full_size_input_costs_more(expert):
    full, native = answer_at((), expert, 1), answer_at(NATIVE, expert, 2)
    assert full[expert]["gflop_per_image"] > 4 * native[expert]["gflop_per_image"]
