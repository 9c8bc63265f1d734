"""A vLLM server that we start and own, behind the OpenAI chat API."""

import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Literal

from fusion.engine import guardian
from fusion.engine.section import SERVED_NAME, EngineSection
from schemas.errors import SetupError

HOST = "127.0.0.1"
# vLLM's own default on a CPU is 92 % of the machine's memory.
CPU_KV_CACHE_BYTES = 1 << 30
# Spinning OpenMP threads beside other busy processes cost 40 times the throughput, and the sampler is compiled even in
# eager mode, for seconds.
CPU_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "TORCH_COMPILE_DISABLE": "1",
}
_PORT_ATTEMPTS = 3
_STOP_S = 2 * guardian.GRACE_S
_EXCEPTION = re.compile(r"\b(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt): .+|\berror: .+")
# vLLM's warnings may quote errors, and its last error only points back at the first.
_HARMLESS = re.compile(r"\b(?:DEBUG|INFO|WARNING)\b|root cause")
_COUNTED = re.compile(r"\bValidationError: \d+ validation errors? for \S+$")
_COUNTERS = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:request_success_total")
# To this machine itself, whatever proxy the environment names.
_HERE = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class VLLMServer:
    """One vLLM server on loopback as a child of this process, its whole tree bound to our life (guardian).

    Attributes:
        api_key: the server answers to this key alone, so that nobody else on the machine uses it.
    """

    def __init__(self, section: EngineSection, device: Literal["cpu", "cuda"]) -> None:
        self.section = section
        self.device = device
        self.api_key = secrets.token_urlsafe(24)
        self._process: subprocess.Popen[bytes] | None = None
        self._log: Path | None = None
        self._port = 0
        self._restarts_left = section.max_restarts
        self._failed = False

    @property
    def base_url(self) -> str:
        return f"http://{HOST}:{self._port}/v1"

    def start(self) -> None:
        """Start the server and wait until it is healthy; one that a signal ends on the way is started again.

        Raises:
            SetupError: it ended by itself, was not healthy in time, or was killed more than `max_restarts` times; the
                paragraph holds the words of its log that matter.
        """
        ports = _PORT_ATTEMPTS
        while True:
            self._launch()
            try:
                self._wait_until_healthy()
                self._failed = False
                return
            except SetupError as error:
                ports -= 1
                # The port was free when we looked; somebody may have taken it before the server did.
                if "address already in use" in str(error).lower() and ports:
                    continue
                if not self._felled() or self._restarts_left == 0:
                    raise
                self._restarts_left -= 1

    def running(self) -> bool:
        """Whether the server's process lives. Cheap: asked between the attempts of a request."""
        return self._process is not None and self._process.poll() is None

    def progress(self) -> Hashable:
        """The server's own count of its work: another value than before where it has worked since.

        The same value, None, for a server that does not say; an `object()` of its own where it counts nothing, as with
        vLLM's --disable-log-stats, so that it never seems to stand still.
        """
        try:
            with _HERE.open(f"http://{HOST}:{self._port}/metrics", timeout=5) as answer:
                lines = answer.read().decode(errors="replace").splitlines()
        except (OSError, urllib.error.URLError):
            return None
        return tuple(line for line in lines if line.startswith(_COUNTERS)) or object()

    def prefix_tokens(self, system: str) -> int:
        """Tokens that every prompt begins with: the chat template's and those of the system text; 0 where unknown."""
        chats = [[{"role": "system", "content": system}, {"role": "user", "content": text}] for text in ("a", "Ω?")]
        said = [self._tokens_of(messages) for messages in chats]
        return next((i for i, (one, other) in enumerate(zip(*said, strict=False)) if one != other), 0)

    def _tokens_of(self, messages: list[dict[str, str]]) -> list[int]:
        request = urllib.request.Request(
            f"http://{HOST}:{self._port}/tokenize",
            json.dumps({"model": SERVED_NAME, "messages": messages}).encode(),
            {"content-type": "application/json", "authorization": f"Bearer {self.api_key}"},
        )
        try:
            with _HERE.open(request, timeout=self.section.health_timeout_s) as answer:
                return list(json.load(answer)["tokens"])
        except (OSError, ValueError, KeyError):  # a template without a system turn, an engine without the endpoint
            return []

    def ensure_alive(self, answers: Callable[[], bool]) -> bool:
        """Restart the server if it has died or hangs; True where it was restarted.

        Args:
            answers: whether the server answers a question now; asked only while its process lives, because a hung one
                still says that it is healthy.

        Raises:
            SetupError: it cannot be started again, or has been restarted `max_restarts` times since `forgive`.
        """
        if self.running() and answers():
            return False
        if self._restarts_left == 0:
            self._failed = True
            raise SetupError(
                f"The caption engine (vLLM, model {self.section.model}, on {self.device}) died or hung more than "
                f"{self.section.max_restarts} times within one shard. Its log says: {log_words(self._log)} "
                f"The whole log is {self._log}. Look for a lack of memory (kv_cache_bytes and max_num_seqs of "
                "caption.engine), or raise caption.engine.max_restarts."
            )
        self._restarts_left -= 1
        self.start()
        return True

    def forgive(self) -> None:
        """Begin to count restarts anew."""
        self._restarts_left = self.section.max_restarts

    def stop(self) -> None:
        """End the server and all its processes; safe to call twice. The log of one that failed is kept."""
        self._end()
        if self._log is not None and self.section.log_dir is None and not self._failed:
            self._log.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self._log.parent.rmdir()
            self._log = None

    def command(self) -> list[str]:
        """Arguments of vLLM's API server. `python -m`: the wheel for CPUs has no working `vllm` command."""
        s = self.section
        eager = s.enforce_eager if s.enforce_eager is not None else self.device == "cpu"
        kv_bytes = s.kv_cache_bytes or (CPU_KV_CACHE_BYTES if self.device == "cpu" else None)
        return [
            *(sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server"),
            *("--host", HOST, "--port", str(self._port)),
            *("--model", s.model, "--served-model-name", SERVED_NAME),
            *(("--revision", s.revision) if s.revision else ()),
            *("--dtype", "float32" if s.deterministic else s.dtype),
            *("--max-model-len", str(s.max_model_len)),
            *("--max-num-seqs", "1" if s.deterministic else str(s.max_num_seqs)),
            *("--block-size", str(s.block_size)),
            *("--tensor-parallel-size", str(s.tensor_parallel)),
            *("--limit-mm-per-prompt", '{"image": 1}'),
            *("--generation-config", "vllm"),
            *("--seed", "0"),
            *(("--kv-cache-memory-bytes", str(kv_bytes)) if kv_bytes else ()),
            *(("--enforce-eager",) if eager else ()),
            "--no-enable-prefix-caching" if s.deterministic else "--enable-prefix-caching",
            "--enable-prompt-tokens-details",
            # Its only client is ours, whose requests may carry boxes.
            "--trust-request-mm-kwargs",
            "--disable-uvicorn-access-log",
            *s.extra_args,
        ]

    def environment(self) -> dict[str, str]:
        """The server's environment; everything that depends on the device is here and in `command`."""
        env = dict(os.environ)
        env |= {"VLLM_API_KEY": self.api_key, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "NO_COLOR": "1"}
        if Path(self.section.model).is_dir():
            env["HF_HUB_OFFLINE"] = "1"
        if self.device == "cpu":
            # This variable would override --kv-cache-memory-bytes.
            env.pop("VLLM_CPU_KVCACHE_SPACE", None)
            env |= CPU_ENVIRONMENT
        return env | self.section.env

    def _launch(self) -> None:
        self._end()
        self._port = _free_port()
        if self._log is None:
            folder = self.section.log_dir
            if folder is not None:
                Path(folder).mkdir(parents=True, exist_ok=True)
            self._log = Path(tempfile.mkdtemp(prefix="densefusion-engine-", dir=folder)) / "vllm.log"
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-P", guardian.__file__, "--", *self.command()],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self.environment(),
                start_new_session=True,
            )

    def _wait_until_healthy(self) -> None:
        started = time.monotonic()
        assert self._process is not None
        while time.monotonic() - started < self.section.startup_timeout_s:
            if self._process.poll() is not None:
                raise SetupError(self._obituary(f"ended with code {self._process.returncode}", started))
            if self._healthy():
                return
            time.sleep(0.2)
        self._end()
        raise SetupError(self._obituary("did not become healthy", started))

    def _felled(self) -> bool:
        """Whether a signal ended the server: a person, the kernel or a scheduler killed it; its settings did not."""
        code = self._process.poll() if self._process is not None else None
        return code is not None and (code < 0 or code > 128)  # as a shell tells it

    def _healthy(self) -> bool:
        try:
            with _HERE.open(f"http://{HOST}:{self._port}/health", timeout=5) as answer:
                return answer.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def _obituary(self, what: str, started: float) -> str:
        seconds = time.monotonic() - started
        self._failed = True
        return (
            f"The caption engine (vLLM, model {self.section.model}, on {self.device}) {what} after {seconds:.0f} s of "
            f"starting. Its log says: {log_words(self._log, self._log_start)} The whole log is {self._log}. Look at "
            "caption.engine (model, dtype, max_model_len, kv_cache_bytes, extra_args, startup_timeout_s) and at "
            "caption.resources, or give an engine that runs already with caption.engine.base_url."
        )

    def _end(self) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            # The guardian's other half then kills the tree.
            self._process.kill()
            self._process.wait()
        self._process = None


def log_words(log: Path | None, start: int = 0) -> str:
    """What a person needs of a server's log from byte `start` on: its first and last error, else its last lines."""
    if log is None or not log.exists():
        return "nothing."
    with log.open("rb") as f:
        f.seek(start)
        text = _ANSI.sub("", f.read().decode(errors="replace"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    grave = [line for line in lines if not _HARMLESS.search(line)]
    errors = [match.group() for line in _joined(grave) if (match := _EXCEPTION.search(line))]
    words = list(dict.fromkeys([errors[0], errors[-1]])) if errors else lines[-3:]
    return " … ".join(word[:600] for word in words).rstrip(".") + "." if words else "nothing."


def _joined(lines: list[str]) -> list[str]:
    """Lines, those of pydantic that only count faults with the first fault behind them."""
    faults = {i: lines[i + 1] for i, line in enumerate(lines[:-1]) if _COUNTED.search(line)}
    return [f"{line}: {faults[i]}" if i in faults else line for i, line in enumerate(lines)]


def _free_port() -> int:
    with socket.socket() as s:
        s.bind((HOST, 0))
        return s.getsockname()[1]
