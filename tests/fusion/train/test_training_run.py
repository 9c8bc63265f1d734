"""Real trainings, seconds long: the loss falls, a kill changes nothing, two processes come to what one comes to."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor
from typer.testing import CliRunner

from benchmarks.fusion.tiny import CONNECTORS, OPTIONS
from fusion.train.__main__ import main
from fusion.train.run import prepare, train
from fusion.train.section import TrainSection
from pipeline.cli import app
from schemas.errors import RequestError, SetupError
from tests.fusion.train.conftest import COLOURS

Maker = Callable[..., TrainSection]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Sums are rounded otherwise where more threads share them, and the forked trainings have one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def settings(tmp_path: Path, parts: Callable[[str], str], conversations: Path, pictures: Path) -> Maker:
    """A training of a small model on the pictures of one colour; more settings win."""

    def make(**more: Any) -> TrainSection:
        values: dict[str, Any] = {
            "output": str(tmp_path / "out"),
            "model": {"vision": {"model": parts("clip")}, "text": {"model": parts("text")}},
            "data": {
                "sources": [{"format": "llava", "path": str(conversations), "images": str(pictures), "system": ""}],
                "workers": 0,
            },
            "trainable": ["connector", "vision_upper_half", "language_model"],
            "learning_rate": 3e-3,
            "batch_size": 4,
            "per_device_batch": 2,
            "max_steps": 6,
            "max_length": 128,
            "precision": "fp32",
            "save_precision": "fp32",
            "log_every": 1,
            "save_every": 2,
        }
        return TrainSection.model_validate({**values, **more})

    return make


def weights(folder: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


def equal(one: str | Path, other: str | Path, within: float = 0.0) -> bool:
    a, b = weights(one), weights(other)
    return set(a) == set(b) and all((a[name] - b[name]).abs().max() <= within for name in a)


def test_the_loss_falls_and_the_model_says_what_it_was_shown(settings: Maker, pictures: Path) -> None:
    section = settings(max_steps=70, learning_rate=8e-3, save_every=200, gradient_checkpointing=False, log_every=35)
    outcome = train(section, "densefusion train tiny.yaml")
    assert outcome is not None and outcome.bad_rows == {} and outcome.rows == 5
    lines = [json.loads(line) for line in (Path(section.output) / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 35, 70]
    assert lines[0]["loss"] > 5 and outcome.loss == lines[-1]["loss"] < 0.2
    assert all(line["grad_norm"] > 0 for line in lines) and outcome.seconds > 0

    processor = AutoProcessor.from_pretrained(outcome.model)
    model = AutoModelForImageTextToText.from_pretrained(outcome.model).eval()
    turns = [
        {"role": "system", "content": ""},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which colour?"}]},
    ]
    text = processor.apply_chat_template(turns, add_generation_prompt=True)
    for colour in COLOURS:
        picture = Image.open(pictures / f"{colour}.png")
        asked = processor(text=[text], images=[picture], return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            said = model.generate(**asked, max_new_tokens=16, do_sample=False)[0, asked["input_ids"].shape[1] :]
        assert said[-1] == processor.tokenizer.eos_token_id
        assert processor.tokenizer.decode(said, skip_special_tokens=True).strip() == f"The wall is {colour}."

    card = (Path(outcome.model) / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["pipeline_tag"] == "image-text-to-text"
    for told in ("densefusion train tiny.yaml", "70 of 4 rows", f"{outcome.loss:.4f}", "vision_upper_half", "llava"):
        assert told in card
    again = train(section, "densefusion train tiny.yaml")  # nothing is left to do
    assert again == outcome


FORKING = """
import json, os, sys
from transformers import CLIPModel, LlamaForCausalLM, TimmBackbone
from fusion.train.run import train
from fusion.train.section import load_section
for line in sys.stdin:
    asked = json.loads(line)
    if "wait" in asked:
        print(os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1]), flush=True)
        continue
    child = os.fork()
    if child == 0:
        os.environ |= asked["env"]
        sys.stdin.close()
        sys.stdout = sys.stderr
        train(load_section(asked["config"], []), "forked")
        os._exit(0)
    print(child, flush=True)
"""


class Forked:
    """Training processes, forked from one that has imported everything, which takes longer than these trainings."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", FORKING],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, section: TrainSection, **env: str) -> int:
        """Begin a training; its process id."""
        config = Path(section.output).with_suffix(".yaml")
        config.write_text(yaml.safe_dump(section.model_dump(mode="json")))
        return self._ask({"config": str(config), "env": env})

    def wait(self, process: int) -> int:
        """The exit code of a training, below zero for a signal."""
        return self._ask({"wait": process})

    def _ask(self, asked: dict[str, Any]) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="module")
def forked() -> Iterator[Forked]:
    processes = Forked()
    yield processes
    processes.close()


def test_a_killed_training_goes_on_to_the_same_weights(settings: Maker, tmp_path: Path, forked: Forked) -> None:
    train(settings(output=str(tmp_path / "unbroken")), "unbroken")
    section = settings()
    out = Path(section.output)
    process = forked.start(section)
    deadline = time.monotonic() + 300
    while not (out / "checkpoint-2" / "whole").exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    assert forked.wait(process) == -signal.SIGKILL and not (out / "model").exists()
    # As if it had been killed while it wrote another checkpoint and a line: neither must be gone on from.
    later = max(int(one.name.split("-")[1]) for one in out.glob("checkpoint-*")) + 1
    (out / f"checkpoint-{later}").mkdir()
    with (out / "log.jsonl").open("a") as log:
        log.write('{"step": 99, "loss"')
    outcome = train(section, "resumed")
    assert outcome is not None and outcome.steps == 6
    assert equal(outcome.model, tmp_path / "unbroken" / "model")
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 7))


def test_two_processes_come_to_what_one_comes_to(settings: Maker, tmp_path: Path, forked: Forked) -> None:
    """Rows of text alone, and bad ones, are among those that they share."""
    data = {**settings().data.model_dump(), "max_bad_rows": 1}
    alone = train(settings(output=str(tmp_path / "alone"), data=data), "alone")
    shared = settings(data=data)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    both = [forked.start(shared, RANK=rank, LOCAL_RANK=rank, **common) for rank in ("0", "1")]
    assert [forked.wait(process) for process in both] == [0, 0]
    assert alone is not None and equal(alone.model, Path(shared.output) / "model", within=1e-6)
    assert "cpu x 2" in (Path(shared.output) / "model" / "README.md").read_text()


def test_both_commands_train_and_answer_in_json(
    settings: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "training.yaml"
    config.write_text(yaml.safe_dump(settings().model_dump(mode="json")))
    once = ["--set", "max_steps=1", "--set"]
    said = CliRunner().invoke(app, ["train", str(config), *once, f"output={tmp_path}/a", "--json"])
    assert said.exit_code == 0, said.output
    answer = json.loads(said.stdout)
    assert answer["steps"] == 1 and answer["model"] == f"{tmp_path}/a/model" and answer["bad_rows"] == {}
    plain = CliRunner().invoke(app, ["train", str(config), *once, f"output={tmp_path}/a"])
    assert (
        plain.exit_code == 0 and "1 steps, " in plain.stdout and f"{tmp_path}/a/model" in plain.stdout.replace("\n", "")
    )
    capsys.readouterr()
    assert main([str(config), *once, f"output={tmp_path}/b"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 1
    assert equal(tmp_path / "a/model", tmp_path / "b/model")
    assert main([str(config), "--set", "learning_rat=1"]) == 2
    assert "did you mean `learning_rate`" in capsys.readouterr().err


def test_settings_of_another_training_are_refused_and_runtime_ones_are_not(settings: Maker) -> None:
    prepare(settings())
    prepare(settings(log_every=5, per_device_batch=4, gradient_checkpointing=False))
    with pytest.raises(RequestError, match=r"is of another training: learning_rate was 0\.003 and is now 0\.001"):
        prepare(settings(learning_rate=1e-3))
    with pytest.raises(RequestError, match=r"is of another training: .*max_boxes"):
        prepare(settings(model={**settings().model.model_dump(), "max_boxes": 7}))


def test_too_many_bad_rows_stop_the_training_and_are_listed(settings: Maker, conversations: Path) -> None:
    rows = json.loads(conversations.read_text())
    conversations.write_text(json.dumps([*rows, *({**rows[0], "image": f"gone{i}.png"} for i in range(3))]))
    with pytest.raises(
        RequestError, match=r"of 8 rows cannot be used.*max_bad_rows \(0\.01\) allows: missing_image \d"
    ):
        train(settings(), "x")
    data = settings().data.model_dump()
    section = settings(output=f"{settings().output}-2", data={**data, "max_bad_rows": 0.5})
    outcome = train(section, "x")
    assert outcome is not None and outcome.bad_rows == {"missing_image": 3}
    listed = (Path(section.output) / "bad_rows.0.jsonl").read_text().splitlines()
    assert {json.loads(line)["row"] for line in listed} == {5, 6, 7} and len(listed) == 3
    assert "3 (missing_image 3) could not be used" in (Path(outcome.model) / "README.md").read_text()


@pytest.mark.parametrize("connector", [one for one in CONNECTORS if one != "mlp"])
def test_every_connector_is_trained(
    connector: str, settings: Maker, parts: Callable[[str], str], conversations: Path
) -> None:
    """Two steps from a checkpoint, in bfloat16, with checkpointed activations and a batch of text alone among them."""
    model = {
        "checkpoint": {"model": parts(connector)},
        "connector_options": json.loads(json.dumps(OPTIONS.get(connector, {}))),
    }
    section = settings(
        model=model, trainable=["connector"], precision="bf16", max_steps=5, batch_size=1, per_device_batch=1
    )
    outcome = train(section, "x")
    assert outcome is not None and outcome.trained.keys() == {"connector"}
    before, after = weights(parts(connector)), weights(outcome.model)
    changed = {name for name in after if not torch.allclose(before[name].float(), after[name], rtol=1e-2, atol=1e-5)}
    assert changed and all(name.startswith("vision.connector.") for name in changed)


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        ({"max_length": 5000}, RequestError, "the language model knows 4096 positions"),
        ({"precision": "fp16"}, RequestError, "precision fp16 needs a GPU"),
        ({"sharding": "fsdp"}, RequestError, "needs several GPUs, one a process; here are 1 processes"),
        ({"sharding": "zero2"}, SetupError, "needs DeepSpeed, which is not installed here"),
        ({"trainable": ["gate"]}, RequestError, "no parameters of the group gate"),
        ({"template": "vicuna"}, RequestError, "There is no template vicuna"),
    ],
)
def test_what_cannot_be_trained_is_said_before_it_starts(
    settings: Maker, more: dict[str, Any], error: type[Exception], said: str
) -> None:
    if torch.cuda.is_available() and "precision" in more:
        pytest.skip("a GPU is here")
    with pytest.raises(error, match=said):
        prepare(settings(**more))


def test_a_missing_file_is_known_before_weights_are_loaded(settings: Maker, parts: Callable[[str], str]) -> None:
    nowhere = {"vision": {"model": "/nowhere"}, "text": {"model": "/nowhere"}}
    data = {"sources": [{"format": "llava", "path": "/nowhere/at/all.json"}]}
    with pytest.raises(RequestError, match=r"There is no file /nowhere/at/all\.json"):
        prepare(settings(model=nowhere, data=data))
    other = {"checkpoint": {"model": parts("sti")}, "connector": "dci"}
    with pytest.raises(RequestError, match=r"model\.connector is 'dci', but what the training starts from has 'sti'"):
        prepare(settings(model=other))
