"""Captions a second of the stage against the same server, driven flat out with the same prompts in the same run."""

import urllib.request
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from benchmarks.caption.bare import body, flat_out
from benchmarks.caption.scenes import GivenPriors, SceneRows, section
from benchmarks.comparison import Comparison, compare
from demo.captioner.rows import PROMPT
from schemas.errors import ContractError
from stages.caption import CaptionStage, request_of
from stages.caption_rows import CaptionRows

# Lets the benchmark empty the server's caches, so that neither side finds what the other left.
_DEV_MODE = {"VLLM_SERVER_DEV_MODE": "1"}
_RESETS = ("reset_prefix_cache", "reset_mm_cache")
_RULES = " Name each thing, its colour, its size and its place." * 8
"""Said on top of the demo's system text, which is shorter than a block of the cache; those of real engines are not."""


def throughput(model: Path, scratch: Path, rows: SceneRows, rounds: int, concurrency: int) -> dict[str, Any]:
    """Both sides on one shard of all rows, `rounds` times, and the share of the shared beginning that the cache served
    in the stage's.

    Raises:
        ContractError: the sides' captions differ in more than 1 of 20 rows: batching alone turns near ties, no more.
    """
    config = section(
        model,
        {"env": _DEV_MODE, "max_num_seqs": concurrency},
        prompt=PROMPT.model_dump() | {"template": str(_with_rules(scratch / "rules.jinja"))},
        concurrency=concurrency,
        reject_on=[],
    )
    stage = CaptionStage(config, GivenPriors())
    stage.open()
    try:
        engine = stage.connect()
        server = engine.server
        assert server is not None
        bodies = _bodies(stage, rows, scratch)
        metrics: list[dict[str, float]] = []

        def staged() -> Callable[[], list[str]]:
            _reset(server.base_url)
            engine.wait_until_it_answers(stage.probe())

            def work() -> list[str]:
                output = stage.process(rows.shard(scratch))
                metrics.append(output.metrics)
                return list(output.rows.column("caption").to_pylist())

            return work

        def bare() -> Callable[[], list[str]]:
            _reset(server.base_url)
            engine.wait_until_it_answers(stage.probe())
            return lambda: [text.strip() for text in flat_out(server.base_url, server.api_key, bodies, concurrency)]

        done = compare(staged, bare, _alike, rounds)
    finally:
        stage.close()
    compared = Comparison("the stage", "bare requests to the same server", len(rows.images), "captions", done)
    shared = sum(one["prefix_tokens"] for one in metrics)
    return {
        "throughput": compared.as_json(),
        "prefix_cache": {
            "shared_tokens_in_whole_blocks": metrics[-1]["prefix_tokens"] / metrics[-1]["answers_asked"],
            "served_from_cache": sum(one["prefix_cached_tokens"] for one in metrics) / shared,
        },
    }


def _bodies(stage: CaptionStage, rows: SceneRows, scratch: Path) -> list[bytes]:
    """Every row's request, made beforehand."""
    config, request = stage.config, request_of(stage.config)
    seen = CaptionRows(rows.shard(scratch), GivenPriors())
    made = []
    for i in range(len(seen.uids)):
        messages = request.prompt.render(seen.alt_texts[i], seen.priors_of(i))
        question = request.question(messages, request.image_url(seen.image(i)))
        made.append(body(config.engine.request_model, question.messages, config.max_tokens))
    return made


def _with_rules(path: Path) -> Path:
    source = (resources.files("fusion") / "prompts" / f"{PROMPT.template}.jinja").read_text(encoding="utf-8")
    end = source.index("{% endblock %}")
    path.write_text(f"{source[:end].rstrip()}{_RULES}\n{source[end:]}", encoding="utf-8")
    return path


def _reset(base_url: str) -> None:
    for what in _RESETS:
        request = urllib.request.Request(f"{base_url.removesuffix('/v1')}/{what}", method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            if answer.status != 200:
                raise ContractError(f"the server did not empty its caches: {what} gives {answer.status}")


def _alike(one: list[str], other: list[str]) -> bool:
    differ = sum(a != b for a, b in zip(one, other, strict=True))
    return differ <= len(one) // 20
