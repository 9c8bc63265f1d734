"""The server's command, environment and log words; starting a real one is in tests/stages/test_caption.py."""

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from fusion.engine import EngineSection
from fusion.engine.server import VLLMServer, log_words
from schemas.errors import SetupError


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_deterministic_means_one_sequence_float32_and_no_prefix_cache() -> None:
    section = EngineSection(model="org/name", deterministic=True, max_num_seqs=64)
    command = VLLMServer(section, "cpu").command()
    assert option(command, "--max-num-seqs") == "1"
    assert option(command, "--dtype") == "float32"
    assert "--no-enable-prefix-caching" in command
    plain = VLLMServer(EngineSection(model="org/name", max_num_seqs=64), "cpu").command()
    assert option(plain, "--max-num-seqs") == "64"
    assert "--enable-prefix-caching" in plain


def test_the_device_decides_environment_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "40")
    section = EngineSection(model="org/name", env={"VLLM_LOGGING_LEVEL": "DEBUG"})
    cpu, cuda = VLLMServer(section, "cpu"), VLLMServer(section, "cuda")
    assert cpu.environment()["OMP_NUM_THREADS"] == "1"
    assert cuda.environment()["OMP_NUM_THREADS"] == "7"
    assert "VLLM_CPU_KVCACHE_SPACE" not in cpu.environment()
    assert cpu.environment()["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert option(cpu.command(), "--kv-cache-memory-bytes") == str(1 << 30)
    assert "--kv-cache-memory-bytes" not in cuda.command()
    assert "--enforce-eager" in cpu.command()
    assert "--enforce-eager" not in cuda.command()


def test_the_key_of_a_server_is_its_own_and_not_on_its_command_line() -> None:
    section = EngineSection(model="org/name")
    one, two = VLLMServer(section, "cpu"), VLLMServer(section, "cpu")
    assert one.api_key != two.api_key
    assert one.environment()["VLLM_API_KEY"] == one.api_key
    assert one.api_key not in " ".join(one.command())


def test_a_section_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValidationError, match="float32"):
        EngineSection(model="m", deterministic=True, dtype="bfloat16")
    with pytest.raises(ValidationError, match="http"):
        EngineSection(model="m", base_url="localhost:8000")


def test_what_decides_the_output_is_told_from_how_it_is_served(tmp_path: Path) -> None:
    base = EngineSection(model="org/name")
    for same in ({"max_num_seqs": 3}, {"base_url": "http://h/v1"}, {"max_restarts": 1}, {"kv_cache_bytes": 1 << 30}):
        assert base.model_copy(update=same).decides() == base.decides()
    for other in ({"dtype": "float16"}, {"deterministic": True}, {"extra_args": ["--quantization=fp8"]}):
        assert base.model_copy(update=other).decides() != base.decides()
    (tmp_path / "config.json").write_text("{}")
    assert EngineSection(model=str(tmp_path)).identity().startswith("folder:")
    assert EngineSection(model="gpt", base_url="https://h/v1").identity() == "gpt@as served"


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("starting\nValueError: no room\nmore\nRuntimeError: failed. See root cause above.\n", "ValueError: no room."),
        ("a\nb.OSError: first\nc\nKeyError: last\n", "b.OSError: first … KeyError: last."),
        ("api_server.py: error: unrecognized arguments: --bad\n", "error: unrecognized arguments: --bad."),
        ("one\ntwo\n\nthree\nfour\n", "two … three … four."),
        ("\x1b[31mValueError: red\x1b[0m\n", "ValueError: red."),
        (
            "WARNING 11-20 saw `OSError: too many files`\n(Core) ERROR 11-20 x.py:1] a.BadError: truth\n",
            "a.BadError: truth.",
        ),
        (
            "p.ValidationError: 1 validation error for ModelConfig\n  Value error, 4096 is too long [x]\n",
            "p.ValidationError: 1 validation error for ModelConfig: Value error, 4096 is too long [x].",
        ),
        ("", "nothing."),
    ],
)
def test_the_words_of_a_log_that_matter(tmp_path: Path, log: str, words: str) -> None:
    path = tmp_path / "vllm.log"
    path.write_text(log)
    assert log_words(path) == words


def test_a_server_that_does_not_become_healthy_in_time_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper = [sys.executable, "-c", "print('still loading', flush=True); import time; time.sleep(100)"]
    monkeypatch.setattr(VLLMServer, "command", lambda self: sleeper)
    server = VLLMServer(EngineSection(model="org/name", startup_timeout_s=1.5, log_dir=str(tmp_path)), "cpu")
    with pytest.raises(SetupError, match=r"org/name.* did not become healthy after [12] s .*still loading"):
        server.start()
    assert not server.running()
    server.stop()
    assert len(list(tmp_path.rglob("vllm.log"))) == 1


HEALTHY_THE_THIRD_TIME = """
import os, signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

starts = Path(sys.argv[1])
starts.write_text(starts.read_text() + "x" if starts.exists() else "x")
if len(starts.read_text()) < 3:
    os.kill(os.getpid(), signal.SIGKILL)


class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()


HTTPServer(("127.0.0.1", int(sys.argv[2])), Health).serve_forever()
"""


@pytest.mark.parametrize("restarts", [1, 2])
def test_a_server_killed_while_it_starts_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarts: int
) -> None:
    starts = tmp_path / "starts"
    monkeypatch.setattr(
        VLLMServer,
        "command",
        lambda self: [sys.executable, "-c", HEALTHY_THE_THIRD_TIME, str(starts), str(self._port)],
    )
    server = VLLMServer(EngineSection(model="m", max_restarts=restarts, log_dir=str(tmp_path)), "cpu")
    try:
        if restarts == 2:
            server.start()
            assert server.running()
        else:
            with pytest.raises(SetupError, match="ended with code 137"):
                server.start()
        assert len(starts.read_text()) == restarts + 1
    finally:
        server.stop()
