"""The engine driven flat out: requests that were made before, and nothing else done."""

import asyncio
import json
from collections.abc import Sequence

import aiohttp


def flat_out(url: str, key: str, bodies: Sequence[bytes], concurrency: int) -> list[str]:
    """The texts of the answers, in order; so many requests at once, each asked once.

    Args:
        url: of the API, up to and with `/v1`.
        bodies: of chat completions.

    Raises:
        aiohttp.ClientError: the engine refuses one.
    """
    return asyncio.run(_flat_out(f"{url}/chat/completions", key, bodies, concurrency))


async def _flat_out(url: str, key: str, bodies: Sequence[bytes], concurrency: int) -> list[str]:
    texts = [""] * len(bodies)
    waiting = iter(enumerate(bodies))
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}

    async def place(session: aiohttp.ClientSession) -> None:
        for i, body in waiting:
            async with session.post(url, data=body) as answer:
                texts[i] = json.loads(await answer.read())["choices"][0]["message"]["content"]

    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(
        connector=connector, headers=headers, raise_for_status=True, timeout=aiohttp.ClientTimeout(600)
    ) as session:
        await asyncio.gather(*(place(session) for _ in range(concurrency)))
    return texts
