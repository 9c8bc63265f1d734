"""Errors that a user is meant to read: one paragraph that says what, where, and what to do."""

EXIT_DONE = 0
EXIT_FAILED_SHARDS = 1
EXIT_BAD_REQUEST = 2


class RequestError(Exception):
    """The request itself is wrong (a config, a path, a resource that is not there); exit code 2."""


class SetupError(Exception):
    """A stage cannot go on anywhere (weights that do not load, an engine that never becomes healthy, a spent budget).

    The run stops and reports it once, instead of failing every shard in turn; exit code 1,
    because the shards remain to be done.
    """


class IncompleteRunError(Exception):
    """Shards failed or are missing, so what was asked cannot be answered yet; exit code 1."""


class ContractError(Exception):
    """A stage broke its own contract (schema, row invariant, unique uids); a bug, never the data."""
