"""URLs to a tar of original images and a row for each: fetched, checked, never changed."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field, field_validator

from schemas.errors import SetupError
from schemas.ledger import Drop
from schemas.section import StageSection, runtime
from schemas.tables import DOWNLOAD
from stages.base import MapStage, ShardInput, ShardOutput
from stages.fetch.addresses import AddressPolicy
from stages.fetch.errors import FetchRefused
from stages.fetch.health import HostHealth
from stages.fetch.inspector import EXTENSIONS, Inspector
from stages.fetch.opener import GuardedOpener, product_token
from stages.fetch.optout import OptOut
from stages.fetch.pacer import HostPacer
from stages.fetch.resolver import Resolver, parse_endpoint
from stages.fetch.shard import download_rows, img2dataset_downloader
from stages.fetch.spool import Spool
from stages.fetch.transport import Transport, has_root_certificates
from stages.tar import DeterministicTar

# Above Pillow's own limit it would refuse, or warn, before ours is asked.
_PILLOW_MAX_PIXELS = 178_956_970


class DownloadSection(StageSection):
    """How images are fetched and which of them are taken. The paper states none of these; the defaults are ours.

    What decides which rows come through (deadlines, caps, retries, opt-outs) is part of the fingerprint; how fast we
    go and where names point is not.
    """

    timeout_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="wall clock of one URL, in seconds: look-up, connection, TLS, redirects, body and retries together",
    )
    connect_timeout_s: float = Field(
        10.0, gt=0, le=3600, description="longest wait for one TCP connection, in seconds; leaves room for a retry"
    )
    max_bytes: int = Field(32 * 1024**2, ge=1, description="longest body taken, in bytes")
    max_pixels: int = Field(
        89_478_485,
        ge=1,
        le=_PILLOW_MAX_PIXELS,
        description="width x height that an image's header may state; the default is where Pillow starts to warn",
    )
    max_frames: int = Field(1, ge=1, description="frames that an image's header may state; 1 takes stills only")
    min_short_edge: int = Field(
        448, ge=1, description="shortest edge of the decoded image, in px; checks what the source stated"
    )
    formats: list[str] = Field(
        ["jpeg", "png", "webp", "gif"],
        min_length=1,
        description=f"image formats taken, by content: any of {', '.join(EXTENSIONS)}",
    )
    retries: int = Field(
        1,
        ge=0,
        le=10,
        description="further attempts of a URL after a failed connection, a timeout, a short body, 429 or 5xx, "
        "within timeout_s; Retry-After is obeyed",
    )
    host_failures: int = Field(
        10,
        ge=0,
        description="a host that failed to answer this often in a row is left alone for ten minutes, and its URLs stop "
        "with the same reason; 0 never leaves one alone",
    )
    max_redirects: int = Field(5, ge=0, le=20, description="redirects followed per URL, each checked like the first")
    robots: bool = Field(True, description="obey robots.txt (RFC 9309)")
    opt_out_headers: list[str] = Field(
        [
            "x-robots-tag: noai",
            "x-robots-tag: noimageai",
            "x-robots-tag: noindex",
            "x-robots-tag: noimageindex",
            "x-robots-tag: none",
            "x-robots-tag: noml",
            "tdm-reservation: 1",
        ],
        description="answers that reserve an image, as `header: value`; an empty list ignores all",
    )
    user_agent: str = Field(
        "densefusion/0.1",
        pattern=r"^[!-~][ -~]*$",
        description="sent with every request; what stands before the first `/` or space is our name in robots.txt",
    )
    contact_url: str | None = Field(
        None, pattern=r"^[!-~]+$", description="where site owners learn who asks, added to the user agent as (+URL)"
    )
    allow_hosts: list[str] = Field(
        [],
        description="hosts (`host` or `host:port`) that may be at private, loopback and other special addresses; "
        "all others only at public ones",
    )
    connect_to: dict[str, str] = runtime(
        {},
        description="`host:port` to `ip:port`: connect there in place of DNS, as curl's --connect-to; "
        "the address is checked like any other",
    )
    threads: int = runtime(32, ge=1, le=1024, description="URLs in flight per worker; up to twice as many bodies wait")
    per_host_concurrency: int = runtime(4, ge=1, description="requests that one host sees at once, per worker")
    per_host_delay_s: float = runtime(
        0.0, ge=0, le=60, description="least time between two requests to one host, in seconds, per worker"
    )

    @field_validator("formats")
    @classmethod
    def _known_formats(cls, formats: list[str]) -> list[str]:
        unknown = sorted(set(formats) - set(EXTENSIONS))
        if unknown:
            raise ValueError(f"unknown: {', '.join(unknown)}; known are {', '.join(EXTENSIONS)}")
        return formats

    @field_validator("allow_hosts")
    @classmethod
    def _hosts(cls, hosts: list[str]) -> list[str]:
        for host in hosts:
            if not re.fullmatch(r"[^\s/@\[\]]+", host):
                raise ValueError(f"{host!r} is not `host` or `host:port`; a URL or a bracket never matches")
        return hosts

    @field_validator("opt_out_headers")
    @classmethod
    def _header_and_value(cls, rules: list[str]) -> list[str]:
        for rule in rules:
            header, _, value = rule.partition(":")
            if not header.strip() or not value.strip():
                raise ValueError(f"{rule!r} is not `header: value`")
        return rules

    @field_validator("connect_to")
    @classmethod
    def _endpoints(cls, places: dict[str, str]) -> dict[str, str]:
        for name, place in places.items():
            host, _, port = name.rpartition(":")
            if not host or not port.isdecimal():
                raise ValueError(f"{name!r} is not `host:port`")
            try:
                parse_endpoint(place)
            except ValueError as error:
                raise ValueError(f"{place!r} is not `ip:port`: {error}") from error
        return places


class DownloadStage(MapStage):
    """Metadata rows to images: `images` is a tar of the original bytes, `<uid>.<ext>`, in the order of the rows."""

    name = "download"
    version = 1
    schema = DOWNLOAD
    rows_from = "ingest"

    config: DownloadSection

    def open(self) -> None:
        """Raises SetupError where no root certificate is to be found: every https URL would fail."""
        if not has_root_certificates():
            raise SetupError(
                "The download stage finds no root certificates on this machine, so every https URL would fail. "
                "Install the system's ca-certificates package, or set SSL_CERT_FILE to a bundle."
            )
        img2dataset_downloader()
        config = self.config
        self._opener = guarded_opener(config)
        self._inspector = Inspector(config.formats, config.max_pixels, config.max_frames, config.min_short_edge)

    def process(self, shard: ShardInput) -> ShardOutput:
        """Metrics: `bytes` of images kept, `requests` made, `private_requests` that only allow_hosts let through."""
        table = shard.tables["ingest"]
        uids, urls = table.column("uid").to_pylist(), table.column("url").to_pylist()
        requests, private = self._opener.transport.requests, self._opener.transport.private_requests
        folder = shard.scratch / "img2dataset"
        folder.mkdir()
        with Spool(shard.scratch / "spool") as spool:
            download_rows(
                uids,
                urls,
                opener=self._opener,
                inspector=self._inspector,
                spool=spool,
                threads=self.config.threads,
                folder=folder,
            )
            output = _collect(uids, urls, spool, shard.scratch / "images.tar")
        output.metrics = {
            "bytes": float(sum(output.rows.column("image_bytes").to_pylist())),
            "requests": float(self._opener.transport.requests - requests),
            "private_requests": float(self._opener.transport.private_requests - private),
        }
        return output


def guarded_opener(config: DownloadSection) -> GuardedOpener:
    """The fetcher that the configuration asks for."""
    agent = config.user_agent if config.contact_url is None else f"{config.user_agent} (+{config.contact_url})"
    return GuardedOpener(
        transport=Transport(AddressPolicy(config.allow_hosts), Resolver(config.connect_to), config.connect_timeout_s),
        pacer=HostPacer(config.per_host_concurrency, config.per_host_delay_s),
        health=HostHealth(config.host_failures),
        optout=OptOut(config.opt_out_headers, product_token(agent)),
        user_agent=agent,
        robots=config.robots,
        timeout_s=config.timeout_s,
        max_bytes=config.max_bytes,
        max_redirects=config.max_redirects,
        retries=config.retries,
    )


def _collect(uids: list[str], urls: list[str], spool: Spool, path: Path) -> ShardOutput:
    """The spooled bodies as a tar in row order, with their rows and the drops."""
    rows: list[dict[str, Any]] = []
    drops: list[Drop] = []
    with path.open("wb") as raw, DeterministicTar(raw) as tar:
        for uid, url in zip(uids, urls, strict=True):
            outcome = spool.outcome(uid)
            if isinstance(outcome, FetchRefused):
                drops.append(Drop(uid, url, outcome.reason, outcome.detail))
                continue
            body = spool.body(uid)
            rows.append(
                {
                    "uid": uid,
                    "url": url,
                    "sha256": outcome.sha256,
                    "format": outcome.format,
                    "width": outcome.width,
                    "height": outcome.height,
                    "orientation": outcome.orientation,
                    "phash": outcome.phash,
                    "image_offset": tar.add(f"{uid}.{EXTENSIONS[outcome.format]}", body),
                    "image_bytes": len(body),
                }
            )
    return ShardOutput(pa.Table.from_pylist(rows, schema=DOWNLOAD), drops, {"images": path})
