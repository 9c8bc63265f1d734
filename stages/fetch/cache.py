"""A cache whose values are made once, however many threads ask for them at the same time."""

import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class OnceCache(Generic[K, V]):
    """Futures by key, forgotten after `ttl_s` seconds, and beyond `size` entries the least recently used first."""

    def __init__(self, ttl_s: float, size: int) -> None:
        self._ttl_s = ttl_s
        self._size = size
        self._lock = threading.Lock()
        self._entries: OrderedDict[K, tuple[float, Future[V]]] = OrderedDict()

    def claim(self, key: K) -> tuple[Future[V], bool]:
        """The key's future, and whether the caller is the one who must give it a result."""
        now = time.monotonic()
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and now - entry[0] < self._ttl_s:
                self._entries.move_to_end(key)
                return entry[1], False
            future: Future[V] = Future()
            self._entries[key] = (now, future)
            self._entries.move_to_end(key)
            if len(self._entries) > self._size:
                self._entries.popitem(last=False)
            return future, True
