"""Cuts a stream of rows into shards of equal size, for gather stages that make new shards."""

from collections.abc import Iterator

import pyarrow as pa

from schemas.ledger import Drop
from stages.base import ShardOutput, shard_name


class Reshard:
    """Collects rows and drops; gives out shards of exactly `shard_rows` rows, the last one at `finish`.

    At least one shard comes out, so that drops have a place even where no row is left, and the last shard holds
    between 1 and `shard_rows` rows where there are any.
    """

    def __init__(self, schema: pa.Schema, shard_rows: int) -> None:
        self._shard_rows = shard_rows
        self._rows = schema.empty_table()
        self._drops: list[Drop] = []
        self._made = 0

    def add(self, rows: pa.Table, drops: list[Drop]) -> Iterator[tuple[str, ShardOutput]]:
        """Take rows in and give out the shards that are now full."""
        self._rows = pa.concat_tables([self._rows, rows])
        self._drops.extend(drops)
        while self._rows.num_rows > self._shard_rows:
            yield self._cut()

    def finish(self) -> tuple[str, ShardOutput]:
        """The last shard."""
        return self._cut()

    def _cut(self) -> tuple[str, ShardOutput]:
        out = ShardOutput(self._rows.slice(0, self._shard_rows).combine_chunks(), self._drops)
        self._rows = self._rows.slice(self._shard_rows)
        self._drops = []
        self._made += 1
        return shard_name(self._made - 1), out
