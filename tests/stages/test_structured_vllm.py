"""Structured answers of a real vLLM server on the CPU with random weights: what is valid is so by the decoding."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from benchmarks.fusion import llava
from stages.caption_section import CaptionSection
from tests.fakes.perceived import CountedImages, account, opened, perceived

pytestmark = pytest.mark.vllm

ALTS = ["an astronaut", "a cat", "coffee", None]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["photograph", "drawing"]},
        "people": {"type": "boolean"},
        "caption": {"type": "string", "minLength": 8, "maxLength": 24},
    },
    "required": ["kind", "people", "caption"],
    "additionalProperties": False,
}


def test_random_weights_answer_by_the_schema(tmp_path: Path) -> None:
    llava.make(tmp_path)
    section = CaptionSection.model_validate(
        {
            "engine": {
                "model": str(tmp_path),
                "dtype": "float32",
                "kv_cache_bytes": 64 << 20,
                "startup_timeout_s": 300,
            },
            "structured": {"json_schema": SCHEMA},
            "max_tokens": 128,
            "concurrency": 2,
        }
    )
    with opened(section) as stage:
        output = stage.process(perceived(tmp_path, ALTS, CountedImages()))
    captions = account(output, len(ALTS))
    assert not output.drops
    validator = Draft202012Validator(SCHEMA)
    for row, text in enumerate(output.rows.column("structured").to_pylist()):
        answer = json.loads(text)
        assert validator.is_valid(answer), text
        assert captions[row] == answer["caption"].strip()
