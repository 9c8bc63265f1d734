"""SQL over the ledger: why did rows stop?"""

from typing import Any

from pipeline.storage import Storage
from pipeline.store import Store
from schemas.errors import RequestError
from schemas.ledger import LEDGER
from stages.base import Stage

SUMMARY = "select stage, reason, count(*) as rows from ledger group by all order by rows desc, stage, reason"


def query(storage: Storage, stages: list[Stage], sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of a query over the table `ledger` (uid, url, stage, reason, detail).

    Raises:
        RequestError: the SQL does not parse or names something that is not there.
    """
    import duckdb

    store = Store(storage)
    files = [
        storage.uri(record.ledger.key)
        for stage in stages
        for record in store.commits(stage.name).values()
        if record.ledger is not None
    ]
    with duckdb.connect() as db:
        if files:
            names = ", ".join("'" + name.replace("'", "''") + "'" for name in files)
            db.execute(f"create view ledger as select * from read_parquet([{names}])")
        else:
            columns = ", ".join(f"{name} varchar" for name in LEDGER.names)
            db.execute(f"create table ledger ({columns})")
        try:
            result = db.execute(sql)
        except duckdb.Error as error:
            raise RequestError(
                f"The query failed: {error}. The one table is `ledger`, its columns are {', '.join(LEDGER.names)}. "
                f'Example: --sql "{SUMMARY}"'
            ) from None
        return [column[0] for column in result.description or []], result.fetchall()
