"""Captions a second of the stage against the same server, driven flat out with the same prompts in the same run."""

import json
import re
import urllib.request
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from benchmarks.caption.bare import flat_out
from benchmarks.caption.scenes import GivenPriors, SceneRows, section
from benchmarks.comparison import Comparison, compare
from demo.captioner.rows import PROMPT
from fusion.engine import request_body
from schemas.errors import ContractError
from stages.caption import CaptionStage, request_of
from stages.caption_rows import CaptionRows

# Lets the benchmark empty the server's caches, so that neither side finds what the other left.
_DEV_MODE = {"VLLM_SERVER_DEV_MODE": "1"}
_RESETS = ("reset_prefix_cache", "reset_mm_cache")
_STEPS = re.compile(r"^vllm:iteration_tokens_total_count\S* (\S+)$", re.MULTILINE)
_RULES = " Name each thing, its colour, its size and its place." * 8
"""Said on top of the demo's system text, which is shorter than a block of the cache; those of real engines are not."""


def throughput(model: Path, scratch: Path, rows: SceneRows, rounds: int, concurrency: int) -> dict[str, Any]:
    """Both sides on one shard of all rows, `rounds` times; the share of the shared beginning that the cache served in
    the stage's; and the engine's steps, which a busy machine makes slower but not more: while a place in the batch
    stands empty, each step does less.

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
        steps: dict[str, float] = {"measured": 0.0, "against": 0.0}

        def counted(side: str, work: Callable[[], list[str]]) -> Callable[[], list[str]]:
            _reset(server.base_url)
            engine.wait_until_it_answers(stage.probe())
            before = _steps(server.base_url)

            def work_and_count() -> list[str]:
                texts = work()
                steps[side] += _steps(server.base_url) - before
                return texts

            return work_and_count

        def staged() -> list[str]:
            output = stage.process(rows.shard(scratch))
            metrics.append(output.metrics)
            return list(output.rows.column("caption").to_pylist())

        def bare() -> list[str]:
            return [text.strip() for text in flat_out(server.base_url, server.api_key, bodies, concurrency)]

        done = compare(lambda: counted("measured", staged), lambda: counted("against", bare), _alike, rounds)
    finally:
        stage.close()
    compared = Comparison("the stage", "bare requests to the same server", len(rows.images), "captions", done)
    shared = sum(one["prefix_tokens"] for one in metrics)
    return {
        "throughput": compared.as_json(),
        "engine_steps": steps | {"ratio": steps["against"] / steps["measured"]},
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
        made.append(json.dumps(request_body(config.engine.request_model, question, config)).encode())
    return made


def _with_rules(path: Path) -> Path:
    source = (resources.files("fusion") / "prompts" / f"{PROMPT.template}.jinja").read_text(encoding="utf-8")
    end = source.index("{% endblock %}")
    path.write_text(f"{source[:end].rstrip()}{_RULES}\n{source[end:]}", encoding="utf-8")
    return path


def _steps(base_url: str) -> float:
    with urllib.request.urlopen(f"{base_url.removesuffix('/v1')}/metrics", timeout=60) as answer:
        found = _STEPS.search(answer.read().decode())
    if found is None:
        raise ContractError("the server does not count its steps")
    return float(found[1])


def _reset(base_url: str) -> None:
    for what in _RESETS:
        request = urllib.request.Request(f"{base_url.removesuffix('/v1')}/{what}", method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            if answer.status != 200:
                raise ContractError(f"the server did not empty its caches: {what} gives {answer.status}")


def _alike(one: list[str], other: list[str]) -> bool:
    differ = sum(a != b for a, b in zip(one, other, strict=True))
    return differ <= len(one) // 20
