"""The caption benchmark on few scenes: what must be exact is, and ratios are there, whatever they are."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.caption.scenes import SceneRows, captioner
from benchmarks.caption.throughput import throughput
from benchmarks.caption.trouble import trouble

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield captioner(tmp_path_factory.mktemp("weights"))


def test_stage_and_bare_engine_say_the_same_and_the_cache_serves_the_shared_beginning(
    tmp_path: Path, weights: Path
) -> None:
    answer = throughput(weights, tmp_path, SceneRows(8), rounds=1, concurrency=4)
    assert answer["throughput"]["amount"] == 8
    assert answer["throughput"]["median_ratio"] > 0
    assert answer["engine_steps"]["measured"] > 0  # twice: once untimed
    assert answer["engine_steps"]["ratio"] == pytest.approx(1, abs=0.35)
    assert answer["prefix_cache"]["shared_tokens_in_whole_blocks"] >= 32
    assert answer["prefix_cache"]["served_from_cache"] >= 0.95


def test_every_row_ends_once_where_the_engine_is_killed_and_answers_badly(tmp_path: Path, weights: Path) -> None:
    answer = trouble(weights, tmp_path, SceneRows(48), kills=1, hangs=0, share=0.3)
    assert answer["ended_once"] == answer["rows"] == answer["captioned"] == 48
    assert answer["killed"] == answer["restarts"] == 1
