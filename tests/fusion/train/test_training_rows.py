"""Order, replacement of bad rows, and what is refused before a training starts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fusion.tiny import tiny_config, tiny_processor
from fusion.train.chat_template import ChatTemplate
from fusion.train.dataset import TrainingRows
from fusion.train.encoding import Encoder
from fusion.train.order import SeededOrder
from fusion.train.section import RECIPES, LLaVASource, load_section
from fusion.train.sources import source_of
from schemas.errors import RequestError


@given(
    words=st.lists(st.integers(-300, 300), max_size=120),
    grouped=st.booleans(),
    size=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_every_epoch_has_every_row_once_in_an_order_of_its_own(
    words: list[int], grouped: bool, size: int, seed: int
) -> None:
    array = np.array(words, np.int32)
    order = SeededOrder(array, grouped, size, seed)
    epochs = [order.rows(epoch).tolist() for epoch in (0, 1)]
    assert all(sorted(rows) == list(range(len(words))) for rows in epochs)
    again = SeededOrder(array, grouped, size, seed)
    again.set_epoch(1)
    fed = list(again)
    assert len(fed) == len(order) and len(fed) % size == 0 and len(fed) - len(words) < size
    assert fed == (epochs[1] * (1 + size))[: len(fed)]


def test_batches_are_of_one_kind_and_of_like_length() -> None:
    rng = np.random.default_rng(0)
    words = (rng.integers(1, 400, 3000) * rng.choice([1, 1, 1, -1], 3000)).astype(np.int32)
    rows = SeededOrder(words, True, 16, 3).rows(0)
    batches = [words[rows[at : at + 16]] for at in range(0, len(rows) - 32, 16)]
    assert all((batch > 0).all() or (batch < 0).all() for batch in batches)
    spread = np.mean([np.ptp(np.abs(batch)) for batch in batches])
    unsorted = SeededOrder(words, False, 16, 3).rows(0)
    assert spread < 0.1 * np.mean([np.ptp(np.abs(words[unsorted[at : at + 16]])) for at in range(0, 2900, 16)])
    longest = [int(np.abs(batch).max()) for batch in batches]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)  # short ones are not all at an end


def rows_of(path: Path, images: Path, limit: int | None = None, seed: int = 0) -> TrainingRows:
    processor = tiny_processor(tiny_config("mlp"))
    source = source_of(LLaVASource(format="llava", path=str(path), images=str(images)))
    return TrainingRows([source], [limit], Encoder(processor, ChatTemplate("plain", processor.tokenizer), 256), seed)


def with_bad(path: Path, bad: int) -> Path:
    """The conversations, and so many rows more whose picture is missing."""
    rows = json.loads(path.read_text())
    rows += [{**rows[0], "id": f"bad{i}", "image": f"gone{i}.png"} for i in range(bad)]
    path.write_text(json.dumps(rows))
    return path


def test_another_row_takes_the_place_of_a_bad_one_and_the_bad_one_is_reported(
    conversations: Path, pictures: Path
) -> None:
    rows = rows_of(with_bad(conversations, 3), pictures)
    assert len(rows) == 8
    good = rows[0]
    assert good["bad_rows"] == []
    replaced = rows[6]
    assert replaced["bad_rows"][0].row == 6
    assert {bad.reason for bad in replaced["bad_rows"]} == {"missing_image"}
    assert "gone1.png" in replaced["bad_rows"][0].detail and "at byte" in replaced["bad_rows"][0].where
    assert any(_same(replaced, rows[i]) for i in range(5))
    again = rows_of(conversations, pictures)[6]
    assert _same(again, replaced) and again["bad_rows"] == replaced["bad_rows"]


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one["input_ids"].tolist() == other["input_ids"].tolist()


def test_a_wrong_folder_is_found_before_anything_is_trained(conversations: Path, tmp_path: Path) -> None:
    rows = json.loads(conversations.read_text())
    conversations.write_text(json.dumps([row for row in rows if "image" in row]))
    (tmp_path / "other").mkdir()
    with pytest.raises(RequestError, match=r"None of the 4 rows looked at can be used.*missing_image.*data\.sources"):
        rows_of(conversations, tmp_path / "other").look()
    with pytest.raises(RequestError, match="100 rows in turn cannot be used"):
        rows_of(conversations, tmp_path / "other")[0]


def test_a_limit_draws_rows_by_the_seed(conversations: Path, pictures: Path) -> None:
    drawn = [sorted(rows_of(conversations, pictures, 2, seed).where(i) for i in range(2)) for seed in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1] and len({tuple(rows) for rows in drawn}) > 1
    assert len(rows_of(conversations, pictures, 99)) == 5


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.vission.model=x", "`model.vission` is not a setting (did you mean `vision`?)"),
        ("data.sources=[{format: llava, path: x, imagess: y}]", "(did you mean `images`?)"),
        ("data.sources=[{format: csv, path: x}]", "format"),
        ("model.llava.model=x", "give one of: checkpoint; llava; vision and text (and detail)"),
        ("model.text=null", "a model of parts needs both vision and text"),
        ("trainable=[connector, connector]", "each group once"),
        ("learning_rates={vision: 1.0e-5}", "learning_rates names vision, which `trainable` does not"),
        ("batch_size=100", "must be a multiple of per_device_batch (16)"),
        ("keep=1", "greater than or equal to 2"),
        ("learning_rate=2", "less than 1"),
    ],
)
def test_a_wrong_setting_is_one_paragraph_with_its_cure(override: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        load_section("densefusion-prealign", [override])
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_steps_are_cut_into_what_the_processes_hold() -> None:
    section = load_section("densefusion-prealign", [])
    assert [section.accumulation(processes) for processes in (1, 2, 16)] == [16, 8, 1]
    with pytest.raises(RequestError, match="Set per_device_batch to a divisor of 8"):
        section.accumulation(32)
    with pytest.raises(RequestError, match="Did you mean the recipe densefusion-prealign"):
        load_section("densefusion-prealing", [])
    assert "caption-engine" in RECIPES.names()
