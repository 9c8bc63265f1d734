"""Pieces of work of a fixed shape, each on one thread: the same bits however many threads there are."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol


class Map(Protocol):
    """`map`, on some threads; results in order."""

    def __call__(self, work: Callable[[Any], Any], items: Iterable[Any], /) -> Iterator[Any]: ...


@contextmanager
def single_threads(threads: int) -> Iterator[Map]:
    """A `map` over so many threads; torch computes on one thread in each of them until the block ends."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if threads == 1:
            yield map
        else:
            with ThreadPoolExecutor(threads, thread_name_prefix="kmeans") as pool:
                yield pool.map
    finally:
        torch.set_num_threads(before)
