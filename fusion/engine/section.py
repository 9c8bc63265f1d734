"""Which model answers, and how it is served or reached."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from schemas.identity import model_identity
from schemas.section import ModelRef, runtime

SERVED_NAME = "caption-engine"


class EngineSection(ModelRef):
    """Which model answers, and how its server is run."""

    base_url: str | list[str] | None = runtime(
        None,
        description="OpenAI API of an engine that runs already (http://host:port/v1), or of several that serve one "
        "model; null starts a vLLM server",
    )
    api_key_env: str | None = runtime(
        None,
        description="environment variable that holds the API key of `base_url`; a config never holds the key",
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field("auto", description="weights and arithmetic")
    max_model_len: int = Field(4096, ge=256, le=1_048_576, description="tokens of prompt, image and answer together")
    deterministic: bool = Field(
        False,
        description="bit-reproducible answers across restarts: one sequence at a time, float32, no prefix cache; slow",
    )
    extra_args: list[str] = Field([], description="further command-line arguments of vLLM's API server")
    env: dict[str, str] = Field({}, description="further environment variables of the server")
    max_num_seqs: int = runtime(256, ge=1, le=65_536, description="sequences that the server works on at once")
    kv_cache_bytes: int | None = runtime(
        None, ge=1 << 20, description="bytes of KV cache; null is vLLM's share of the GPU, and 1 GiB on a CPU"
    )
    block_size: int = runtime(
        32,
        ge=1,
        le=256,
        description="tokens of a KV block; the prefix cache shares whole blocks; multiples of 32 on a CPU",
    )
    tensor_parallel: int = runtime(1, ge=1, le=1024, description="GPUs that one server splits the model over")
    enforce_eager: bool | None = runtime(None, description="skip graph compilation; null skips it on a CPU alone")
    startup_timeout_s: float = runtime(1800.0, gt=0, le=86_400, description="seconds until the server must be healthy")
    health_timeout_s: float = runtime(
        60.0,
        gt=0,
        le=3600,
        description="seconds a server may take for one short question before it counts as hung",
    )
    stall_timeout_s: float = runtime(
        300.0,
        gt=0,
        le=86_400,
        description="seconds without an answer and without a token, by a server's own count, until it counts as hung",
    )
    max_restarts: int = runtime(8, ge=0, le=1000, description="restarts within one shard of a server that died or hung")
    log_dir: str | None = runtime(None, description="folder that keeps the server's logs; null removes them at the end")

    requests_per_minute: float | None = runtime(
        None, gt=0, description="limit of a hosted engine, all workers of the stage together; null is none"
    )
    tokens_per_minute: float | None = runtime(
        None, gt=0, description="the same of tokens, prompt and answer together, as earlier answers took them"
    )
    patience_s: float = runtime(
        900.0,
        ge=0,
        le=86_400,
        description="seconds that one request waits, all its waits together, on an engine that refuses for the pace "
        "(429, or 503 with Retry-After)",
    )

    @field_validator("base_url")
    @classmethod
    def _http(cls, value: str | list[str] | None) -> str | list[str] | None:
        urls = [value] if isinstance(value, str) else value
        if urls == [] or any(not url.startswith(("http://", "https://")) for url in urls or []):
            raise ValueError("base_url must start with http:// or https://")
        return value

    @model_validator(mode="after")
    def _deterministic_is_float32(self) -> "EngineSection":
        if self.deterministic and self.dtype not in ("auto", "float32"):
            raise ValueError("deterministic needs dtype float32 or auto")
        return self

    @property
    def urls(self) -> list[str]:
        """Those of `base_url`, each once; none where a server is started."""
        given = [self.base_url] if isinstance(self.base_url, str) else self.base_url or []
        return list(dict.fromkeys(url.rstrip("/") for url in given))

    @property
    def request_model(self) -> str:
        """The model name that requests carry."""
        return self.model if self.base_url else SERVED_NAME

    def identity(self) -> str:
        """What the fingerprint holds. An engine given by URL is taken at its word: the name and revision of the config.

        Raises:
            RequestError: `model` is a path that does not exist.
        """
        if self.base_url:
            return f"{self.model}@{self.revision or 'as served'}"
        return model_identity(self)
