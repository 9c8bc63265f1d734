"""A dataset of another size needs another `select`, and nothing before it."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pipeline.plan import plan
from schemas.section import StageSection
from schemas.tables import CLUSTER, DEDUP, DOWNLOAD, INGEST
from stages.base import GatherInput, GatherStage, ShardOutput
from stages.select import SelectSection, SelectStage
from tests.pipeline.stages_for_tests import store_at, work_on


class Given(GatherStage):
    """One shard of thirty rows in three clusters."""

    version = 1
    rows_from = None

    def __init__(self, name: str, schema: pa.Schema) -> None:
        super().__init__(StageSection())
        self.name, self.schema = name, schema

    def process(self, inputs: GatherInput) -> Iterator[tuple[str, ShardOutput]]:
        whole = {"cluster": 0, "centroid_cosine": 0.5, "source": "s", "source_row": 0, "format": "jpeg"}
        whole |= {
            "width": 9,
            "height": 9,
            "orientation": 1,
            "phash": 0,
            "image_offset": 0,
            "image_bytes": 1,
            "near_clusters": [],
            "near_cosines": [],
        }
        rows = [
            whole | {"uid": f"{n:032x}", "url": f"http://a.example/{n}", "sha256": f"{n:064x}", "cluster": n % 3}
            for n in range(30)
        ]
        yield "00000", ShardOutput(pa.Table.from_pylist(rows, schema=self.schema))


def stages(**settings: int) -> list[GatherStage]:
    schemas = {"ingest": INGEST, "download": DOWNLOAD, "cluster": CLUSTER, "dedup": DEDUP}
    return [*(Given(*given) for given in schemas.items()), SelectStage(SelectSection(**settings))]


def test_another_limit_redoes_select_alone(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    first = stages(per_cluster=8)
    for stage in first:
        assert work_on(store, stage).run("all") == "done"
    assert not any(item.pending for item in plan(store.storage, [*first]))
    smaller = stages(per_cluster=8, limit=10)
    assert {item.name: item.because for item in plan(store.storage, [*smaller]) if item.pending} == {
        "select": ["select.limit"]
    }
    saved = store.record_of("select", "00000").object("order", "00000").sha256
    assert work_on(store, smaller[-1]).run("all") == "done"
    assert store.table("select", "00000").num_rows == 10
    assert store.record_of("select", "00000").object("order", "00000").sha256 == saved
