"""The engine as its users see it: started or reached, asked, brought back."""

import os
from typing import Any, Literal

from fusion.engine.answers import Failure, Question
from fusion.engine.client import ChatClient, Hang
from fusion.engine.endpoints import Endpoint
from fusion.engine.pace import Pace
from fusion.engine.sampling import SamplingSection
from fusion.engine.section import EngineSection
from fusion.engine.server import VLLMServer
from schemas.errors import SetupError


class Engine:
    """A vLLM server of ours, or engines that run already at the section's URLs.

    Args:
        device: where a server that is started computes.
        concurrency, timeout_s, retries: as in ChatClient.
        of: where the section stands in the user's config, for error messages: `caption.engine`.
        workers: how many of us there are at most; each keeps to its share of the engine's limits.
        sampling: of the short questions that find out whether it answers; they allow one token.

    Attributes:
        server: ours; None where engines run already.
    """

    def __init__(
        self,
        section: EngineSection,
        device: Literal["cpu", "cuda"],
        *,
        concurrency: int,
        timeout_s: float,
        retries: int,
        of: str = "engine",
        workers: int = 1,
        sampling: SamplingSection | None = None,
    ) -> None:
        self.section = section
        self._asking = {"concurrency": concurrency, "timeout_s": timeout_s, "retries": retries}
        self._of = of
        self._short = (sampling or SamplingSection()).model_copy(update={"max_tokens": 1})
        self.server = VLLMServer(section, device) if not section.urls else None
        self._endpoints: list[Endpoint] = []
        requests, tokens = section.requests_per_minute, section.tokens_per_minute
        self._pace = Pace(requests and requests / workers, tokens and tokens / workers, section.patience_s)
        self._hang: Hang | None = None

    def start(self) -> None:
        """Start the server, or find the key for those that run.

        Raises:
            SetupError: it does not start; there is no key.
        """
        if self.server is not None:
            self.server.start()
            return
        name = self.section.api_key_env
        key = "none"
        if name is not None:
            key = os.environ.get(name, "")
            if not key:
                raise SetupError(
                    f"{self._of}.api_key_env names {name}, which is not set where the engine is asked. Set it there "
                    "(for a submitted run with `densefusion submit --env`)."
                )
        # The same for all clients to come, so that one which cannot be reached rests beyond the end of a shard.
        self._endpoints = [Endpoint(url, key) for url in self.section.urls]

    def stop(self) -> None:
        """End the server; safe to call twice."""
        if self.server is not None:
            self.server.stop()

    def client(self, sampling: SamplingSection, further: dict[str, Any] | None = None, **asking: Any) -> ChatClient:
        """A client of the engine as it is now: a restarted server has another port.

        Args:
            further: of each request's body, what every engine that is meant here understands.
            asking: `concurrency`, `timeout_s`, `retries` where other than those of this engine.
        """
        section, server = self.section, self.server
        if server is None:
            endpoints = self._endpoints
            self._hang = None
        else:
            endpoints = [Endpoint(server.base_url, server.api_key)]
            self._hang = Hang(server.progress, section.stall_timeout_s)
        return ChatClient(
            endpoints,
            section.request_model,
            sampling,
            **(self._asking | asking),
            further=further,
            pace=self._pace,
            alive=server.running if server is not None else lambda: True,
            hang=self._hang,
        )

    def wait_until_it_answers(self, probe: Question) -> None:
        """Have it answer one short question; one that dies meanwhile is started again.

        Raises:
            SetupError: it lives and does not answer, or is gone for good.
        """
        while failure := self._ask_one(probe):
            if self.server is None or self.server.running():
                raise self._no_answer(failure)
            self.server.ensure_alive(lambda: False)

    def revive(self, probe: Question) -> bool:
        """After a client lost questions: whether the engine had to be restarted.

        Raises:
            SetupError: it is gone for good.
        """
        quick = {"timeout_s": self.section.health_timeout_s}
        if self.server is None:
            if failure := self._ask_one(probe, **quick):
                raise self._no_answer(failure)
            return False
        hung = self._hang is not None and self._hang.found
        return self.server.ensure_alive(lambda: not hung and self._ask_one(probe, **quick, retries=0) is None)

    def forgive(self) -> None:
        """Begin to count restarts anew."""
        if self.server is not None:
            self.server.forgive()

    def prefix_tokens(self, system: str) -> int:
        """Whole KV blocks' worth of tokens that all prompts with this system text begin with; 0 where that is unknown,
        as with an engine of somebody else's, or nothing is shared."""
        if self.server is None or self.section.deterministic:
            return 0
        block = self.section.block_size
        return self.server.prefix_tokens(system) // block * block

    def _ask_one(self, probe: Question, **asking: Any) -> Failure | None:
        [result] = self.client(self._short, **asking).ask([lambda: probe])
        return result if isinstance(result, Failure) else None

    def _no_answer(self, failure: Failure) -> SetupError:
        where = ", ".join(self.section.urls) or "vLLM started here"
        return SetupError(
            f"The engine ({where}, model {self.section.model}) does not answer a short question about a small image: "
            f"{failure.detail}. Check that it is up, that it serves this model under this name, that the model takes "
            f"images and has a chat template ({self._of})."
        )
