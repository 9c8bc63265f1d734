"""One stage a file: a shard in, a shard out. Stages know shards; they know neither Ray nor the store."""
