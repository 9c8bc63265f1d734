"""Greedy answers of a small fusion model of each connector: transformers against vLLM, in float32.

    python -m benchmarks.fusion.serving [--json] [--connector NAME ...] [--prompts N] [--tokens N]

Weights are random and wide enough that picture, boxes and prompt decide the words. Both read the same checkpoint from
disk, each with its own language model; a token that differs at any place makes an answer another one.
"""

import argparse
import gc
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.fusion.tiny import CONNECTORS, tiny_model, tiny_processor
from benchmarks.machine import machine
from fusion.engine.server import CPU_ENVIRONMENT
from fusion.model import register
from fusion.model.connectors import connector_of

CASES = (*CONNECTORS, "mlp+anyres")
"""Connectors, and AnyRes on the connector of the engine that the DenseFusion paper starts from."""


@dataclass(frozen=True)
class Case:
    """One request.

    Attributes:
        boxes: x1, y1, x2, y2 of each, 0 to 1 of the picture; None where the connector takes none.
    """

    prompt: str
    picture: Image.Image
    boxes: list[list[float]] | None


@dataclass(frozen=True)
class Written:
    """A greedy answer.

    Attributes:
        logprobs: of each token, natural logarithm.
    """

    tokens: list[int]
    logprobs: list[float]


@dataclass(frozen=True)
class Parity:
    """What came of one connector.

    Attributes:
        distinct: different answers among those of transformers; fewer than `prompts` would show less.
        max_logprob_difference: over all places before a first difference.
    """

    connector: str
    prompts: int
    tokens: int
    identical: int
    distinct: int
    max_logprob_difference: float


def cases(count: int, boxes: bool, seed: int = 0) -> list[Case]:
    """Requests with pictures of different shapes; with boxes, the first has none and each further one more."""
    random = np.random.RandomState(seed)
    made = []
    for i in range(count):
        height, width = random.randint(40, 200, 2)
        coarse = random.randint(0, 256, (6, 6, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((int(width), int(height)), Image.Resampling.NEAREST)
        corners = np.sort(random.uniform(0, 1, (i, 2, 2)), axis=1).reshape(i, 4).round(3).tolist()
        prompt = f"<s>USER: <image>\nWhat stands beside object {i} of the picture?\nASSISTANT:"
        made.append(Case(prompt, picture, corners if boxes else None))
    return made


def by_transformers(folder: Path, asked: Sequence[Case], tokens: int) -> list[Written]:
    """Answers of the checkpoint through the Auto classes, one at a time."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    register()
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    answers = []
    for case in asked:
        boxes = {} if case.boxes is None else {"boxes": [case.boxes]}
        inputs = processor(
            text=case.prompt, images=case.picture, return_tensors="pt", add_special_tokens=False, **boxes
        )
        with torch.inference_mode():
            out = model.generate(
                **inputs, max_new_tokens=tokens, do_sample=False, output_logits=True, return_dict_in_generate=True
            )
        written = out.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        logprobs = [
            float(torch.log_softmax(logits[0].double(), dim=-1)[token])
            for logits, token in zip(out.logits, written, strict=True)
        ]
        answers.append(Written(written, logprobs))
    return answers


def by_vllm(folder: Path, asked: Sequence[Case], tokens: int) -> list[Written]:
    """Answers of the checkpoint by an engine in this process, all requests at once."""
    os.environ |= CPU_ENVIRONMENT | {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_LOGGING_STREAM": "ext://sys.stderr"}
    from transformers import AutoTokenizer
    from vllm import LLM, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory

    # An engine collects garbage a dozen times, each time over all that was imported.
    gc.freeze()
    encode = AutoTokenizer.from_pretrained(folder).encode
    engine = LLM(
        str(folder),
        dtype="float32",
        enforce_eager=True,
        max_model_len=1024,
        max_num_seqs=8,
        kv_cache_memory_bytes=64 << 20,
        block_size=32,
        limit_mm_per_prompt={"image": 1},
        generation_config="vllm",
        seed=0,
    )
    try:
        requests = [
            {
                "prompt_token_ids": encode(case.prompt, add_special_tokens=False),
                "multi_modal_data": {"image": case.picture},
                "mm_processor_kwargs": {} if case.boxes is None else {"boxes": [case.boxes]},
            }
            for case in asked
        ]
        sampling = SamplingParams(temperature=0, max_tokens=tokens, logprobs=1)
        outputs = [one.outputs[0] for one in engine.generate(requests, sampling, use_tqdm=False)]
        return [
            Written(
                list(output.token_ids),
                [place[token].logprob for place, token in zip(output.logprobs, output.token_ids, strict=True)],
            )
            for output in outputs
        ]
    finally:
        engine.llm_engine.engine_core.shutdown()
        del engine
        cleanup_dist_env_and_memory()


def parity(name: str, prompts: int, tokens: int) -> Parity:
    """Both sides of one of `CASES`."""
    connector, _, tiled = name.partition("+")
    model = tiny_model(connector, anyres=bool(tiled))
    asked = cases(prompts, connector_of(connector).takes_boxes)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tiny_processor(model.config).save_pretrained(folder)
        wanted, given = (side(Path(folder), asked, tokens) for side in (by_transformers, by_vllm))
    differences = [0.0]
    for one, other in zip(wanted, given, strict=True):
        for place in zip(one.tokens, other.tokens, one.logprobs, other.logprobs, strict=False):
            if place[0] != place[1]:
                break
            differences.append(abs(place[2] - place[3]))
    identical = sum(one.tokens == other.tokens for one, other in zip(wanted, given, strict=True))
    distinct = len({tuple(one.tokens) for one in wanted})
    return Parity(name, prompts, tokens, identical, distinct, max(differences))


def measure(names: Sequence[str], prompts: int, tokens: int) -> dict[str, Any]:
    """The whole answer of the benchmark."""
    return {
        "benchmark": "fusion.serving",
        "machine": machine("torch", "transformers"),
        "setting": {"dtype": "float32", "prompts": prompts, "tokens": tokens},
        "connectors": [asdict(parity(name, prompts, tokens)) for name in names],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    command = argparse.ArgumentParser(prog="python -m benchmarks.fusion.serving", description=__doc__)
    command.add_argument("--json", action="store_true", help="print JSON in place of a table")
    command.add_argument("--connector", nargs="+", choices=CASES, default=list(CASES), help="only these")
    command.add_argument("--prompts", type=int, default=8, help="requests to each model")
    command.add_argument("--tokens", type=int, default=48, help="tokens of each answer")
    given = command.parse_args(arguments)
    answer = measure(given.connector, given.prompts, given.tokens)
    if given.json:
        print(json.dumps(answer, indent=2))
        return
    table = Table("connector", "identical answers", "distinct answers", "max |difference of logprob|")
    for row in answer["connectors"]:
        same, apart = (f"{row[name]}/{row['prompts']}" for name in ("identical", "distinct"))
        table.add_row(row["connector"], same, apart, f"{row['max_logprob_difference']:.1e}")
    Console().print(table)


if __name__ == "__main__":
    main()
