import csv
import gzip
import itertools
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.errors import RequestError
from schemas.ledger import Reason
from stages.ingest import IngestSection, IngestStage
from tests.fakes.memory_gather import MemoryGather, run_gather


@pytest.fixture
def ingest(tmp_path):
    """Run the stage over what the sources hold: all kept rows, all drops, the outputs by shard."""

    def run(*sources, **config):
        stage = IngestStage(IngestSection(sources=[str(s) for s in sources or (tmp_path,)], **config))
        stage.check()
        outputs = run_gather(stage, MemoryGather(tmp_path, {}))
        rows = [row for o in outputs.values() for row in o.rows.to_pylist()]
        return rows, [drop for o in outputs.values() for drop in o.drops], outputs

    return run


def write(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def test_laion_columns_and_odd_sizes(tmp_path, ingest):
    write(
        tmp_path / "part-00000.parquet",
        SAMPLE_ID=[1, 2, 3, 4, 5],
        URL=[f"http://a.example/{i}.jpg" for i in range(5)],
        TEXT=["a cat", None, "", "small", "tall"],
        HEIGHT=pa.array([512.0, None, float("nan"), 300.0, 0.0]),
        WIDTH=pa.array([640.0, None, 0.0, 2000.0, 447.0]),
        NSFW=["UNLIKELY"] * 5,
        similarity=pa.array([0.3] * 5, pa.float64()),
    )
    rows, drops, _ = ingest()
    assert [(r["width"], r["height"], r["alt_text"]) for r in rows] == [
        (640, 512, "a cat"),
        (None, None, None),
        (None, None, None),
    ]
    assert [(r["source"], r["source_row"]) for r in rows] == [("part-00000.parquet", i) for i in range(3)]
    assert [d.reason for d in drops] == [Reason.STATED_SIZE] * 2
    assert "300" in drops[0].detail


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (
            {"URL": "u", "TEXT": "t", "WIDTH": 500, "punsafe": 0.5, "pwatermark": 0.25, "AESTHETIC_SCORE": 7.0},
            {"alt_text": "t", "width": 500, "punsafe": 0.5, "pwatermark": 0.25, "aesthetic": 7.0},
        ),
        (
            {"url": "u", "caption": "t", "key": "k", "status": "success", "width": 256, "original_width": 900},
            {"alt_text": "t", "width": 900},
        ),
        (
            {"uid": "0123456789abcdef" * 2, "url": "u", "original_width": 900, "clip_b32_similarity_score": 0.5},
            {"uid": "0123456789abcdef" * 2, "width": 900, "similarity": 0.5},
        ),
        (
            {"id": 12345, "url": "u", "text": "t", "watermark_score": 0.5, "aesthetic_score_laion_v2": 5.0,
             "nsfw_score_opennsfw2": 0.25, "clip_similarity_vitb32": 0.25, "clip_similarity_vitl14": 0.5},
            {"pwatermark": 0.5, "aesthetic": 5.0, "punsafe": 0.25, "similarity": 0.25},
        ),
        ({"URL": "u", "TEXT": "t", "LANGUAGE": "EN"}, {"language": "en"}),
    ],
    ids=["aesthetic", "relaion", "datacomp", "coyo", "multi"],
)  # fmt: skip
def test_aliases(tmp_path, ingest, columns, expected):
    values = columns | {name: "http://a.example/x.jpg" for name in columns if name.lower() == "url"}
    write(tmp_path / "a.parquet", **{name: [value] for name, value in values.items()})
    (row,), drops, _ = ingest()
    assert not drops
    assert {name: row[name] for name in expected} == expected


def test_all_kinds_of_file_say_the_same(tmp_path, ingest):
    records = [
        {"URL": f"http://a.example/{i}.jpg", "TEXT": f'line one\nand "two", {i}', "WIDTH": 500 + i, "HEIGHT": 600.0}
        for i in range(30)
    ]
    texts = {"jsonl": "".join(json.dumps(r) + "\n" for r in records)}
    for suffix, delimiter in (("csv", ","), ("tsv", "\t")):
        path = tmp_path / f"plain.{suffix}"
        with path.open("w", newline="") as f:
            writer = csv.DictWriter(f, list(records[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(records)
        texts[suffix] = path.read_text()
    paths = [write(tmp_path / "a.parquet", **{k: [r[k] for r in records] for k in records[0]})]
    for suffix, text in texts.items():
        paths.append(tmp_path / f"a.{suffix}")
        paths[-1].write_text(text)
        paths.append(tmp_path / f"a.{suffix}.gz")
        paths[-1].write_bytes(gzip.compress(text.encode()))
    want, _, _ = ingest(paths[0])
    assert len(want) == 30
    for path in paths[1:]:
        got, drops, _ = ingest(path)
        assert not drops
        assert [r | {"source": ""} for r in got] == [r | {"source": ""} for r in want]


def test_jsonl_with_missing_keys_and_mixed_types(tmp_path, ingest):
    lines = [
        {"url": "http://a.example/1", "width": "640", "height": 480},
        {"url": "http://a.example/2", "width": 640.0, "text": "late key \ud800"},
        {"text": "no url"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    rows, drops, _ = ingest()
    assert [(r["width"], r["alt_text"]) for r in rows] == [(640, None), (640, "late key ?")]
    assert [(d.reason, d.url) for d in drops] == [(Reason.NO_URL, "")]


def test_text_that_is_not_utf8_is_replaced(tmp_path, ingest):
    text = pa.array([b"caf\xe9"]).view(pa.utf8())
    pq.write_table(pa.table({"url": ["http://a.example/1"], "text": text}), tmp_path / "a.parquet")
    rows, _, _ = ingest()
    assert rows[0]["alt_text"] == "caf\N{REPLACEMENT CHARACTER}"


def test_filters_on_stated_scores_refuse_what_is_not_stated(tmp_path, ingest):
    n = 7
    columns = {
        "url": [f"http://a.example/{i}" for i in range(n)],
        "punsafe": [0.1, 0.9, None, 0.1, 0.1, 0.1, 0.1],
        "pwatermark": [0.1, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1],
        "aesthetic": [6.0, 6.0, 6.0, 6.0, 4.0, 6.0, 6.0],
        "language": ["en", "en", "en", "en", "en", "fr", "EN "],
        "status": [None, "success", "", "success", "success", "success", "failed_to_download"],
    }
    write(tmp_path / "a.parquet", **columns)
    rows, drops, _ = ingest(max_punsafe=0.5, max_pwatermark=0.8, min_aesthetic=5, languages=["en"])
    assert [r["source_row"] for r in rows] == [0]
    assert [d.reason for d in drops] == [
        Reason.UNSAFE,
        Reason.UNSAFE,
        Reason.WATERMARK,
        Reason.AESTHETIC,
        Reason.LANGUAGE,
        Reason.SOURCE_STATUS,
    ]
    assert drops[1].detail == "states no punsafe"
    rows, drops, _ = ingest()
    assert [d.reason for d in drops] == [Reason.SOURCE_STATUS]


def test_duplicates_and_bad_urls(tmp_path, ingest):
    uid = "00112233445566778899aabbccddeeff"
    urls = [
        "http://a.example/1",
        "http://a.example/1 ",
        None,
        " ",
        "nonsense",
        "http://[bad",
        "http:///path",
        "ftp://a.example/x",
    ]
    write(tmp_path / "a.parquet", url=urls)
    write(
        tmp_path / "b.parquet",
        url=["http://b.example/1", "http://b.example/2", "http://a.example/1"],
        uid=[uid.upper(), uid, None],
    )
    rows, drops, _ = ingest()
    assert [r["url"] for r in rows] == ["http://a.example/1", "ftp://a.example/x", "http://b.example/1"]
    assert rows[2]["uid"] == uid
    assert [d.reason for d in drops] == [
        Reason.DUPLICATE_URL,
        Reason.NO_URL,
        Reason.NO_URL,
        *[Reason.BAD_URL] * 3,
        Reason.DUPLICATE_UID,
        Reason.DUPLICATE_URL,
    ]
    assert rows[0]["uid"] in drops[0].detail
    assert uid in drops[6].detail


def test_uid_is_the_urls_own_wherever_it_stands(tmp_path, ingest):
    write(tmp_path / "a.parquet", url=["http://a.example/1", "http://a.example/2"])
    write(tmp_path / "b.parquet", url=["http://a.example/2", "http://a.example/1"], key=["x", "y"])
    a, _, _ = ingest(tmp_path / "a.parquet")
    b, _, _ = ingest(tmp_path / "b.parquet")
    assert {r["url"]: r["uid"] for r in a} == {r["url"]: r["uid"] for r in b}


URLS = st.sampled_from([None, "", "x", *(f"http://a.example/{i}" for i in range(4))])
UIDS = st.sampled_from([None, "7", *(c * 32 for c in "abc")])


@given(st.lists(st.tuples(URLS, UIDS, st.sampled_from([None, 100, 500])), max_size=60), st.integers(1, 7))
def test_every_row_ends_once(tmp_path_factory, table, shard_rows):
    folder = tmp_path_factory.mktemp("ingest")
    urls, uids, widths = zip(*table, strict=True) if table else ((), (), ())
    write(
        folder / "a.parquet",
        url=pa.array(urls, pa.string()),
        uid=pa.array(uids, pa.string()),
        width=pa.array(widths, pa.int32()),
    )
    stage = IngestStage(IngestSection(sources=[str(folder)], shard_rows=shard_rows))
    outputs = run_gather(stage, MemoryGather(folder, {}))
    rows = [r for o in outputs.values() for r in o.rows.to_pylist()]
    drops = [d for o in outputs.values() for d in o.drops]
    assert len(rows) + len(drops) == len(table)
    assert [o.rows.num_rows for o in outputs.values()][:-1] == [shard_rows] * (len(outputs) - 1)
    assert all(o.rows.num_rows for o in outputs.values()) or len(outputs) == 1
    assert [r["source_row"] for r in rows] == sorted(r["source_row"] for r in rows)
    # of each URL in the metadata exactly one row is not a duplicate
    first = [r["url"] for r in rows] + [d.url for d in drops if d.reason in (Reason.BAD_URL, Reason.STATED_SIZE)]
    named = [d.url for d in drops if d.reason is Reason.DUPLICATE_UID]
    assert sorted(first + named) == sorted({u for u in urls if u})


def test_limit_stops_reading(tmp_path, ingest):
    for part, name in enumerate("ab"):
        write(
            tmp_path / f"{name}.parquet", url=[f"http://a.example/{part}/{i}" for i in range(10)], width=[100, 500] * 5
        )
    rows, drops, outputs = ingest(limit=7, shard_rows=3)
    assert len(rows) == 7
    assert len(drops) == 7
    assert [o.rows.num_rows for o in outputs.values()] == [3, 3, 1]
    again, _, _ = ingest(limit=5)
    assert [r["uid"] for r in again] == [r["uid"] for r in rows[:5]]


def test_sources_in_the_order_given_and_once(tmp_path, ingest):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("deep/er/c.parquet", "deep/a.parquet", "b.parquet"):
        write(tmp_path / name, url=[f"http://{name}"])
    (tmp_path / "deep" / "readme.md").write_text("not metadata")
    rows, drops, _ = ingest(tmp_path / "b.parquet", tmp_path / "deep", tmp_path / "*.parquet")
    assert [r["source"] for r in rows] == ["b.parquet", "a.parquet", "er/c.parquet"]
    assert not drops


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: folder / "missing.parquet", "there is no"),
        (lambda folder: folder / "no-such-*.parquet", "there is no"),
        (lambda folder: folder, "holds no metadata"),
        (lambda folder: _put(folder / "a.xlsx", b""), "cannot be read"),
        (lambda folder: _put(folder / "a.parquet", b"PAR1 not really PAR1"), "a.parquet cannot be read"),
        (lambda folder: _put(folder / "a.csv", b""), "a.csv cannot be read"),
        (lambda folder: _put(folder / "a.csv.gz", b"plain"), "a.csv.gz cannot be read"),
        (lambda folder: _put(folder / "a.jsonl", b'{"url": 1}\n{'), "line 2: not JSON"),
        (lambda folder: _put(folder / "a.jsonl", b"[1]\n"), "expected a JSON object"),
        (lambda folder: _put(folder / "a.csv", b"link,alt\nhttp://x,y\n"), "It has: link, alt"),
        (lambda folder: "s3://bucket/a.parquet", "not a local path"),
    ],
)
def test_bad_sources_are_said_before_anything_starts(tmp_path, make, says):
    source = make(tmp_path)
    with pytest.raises(RequestError, match=says):
        IngestStage(IngestSection(sources=[str(source)])).check()


def _put(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("damage", ["csv", "parquet", "gzip"])
def test_a_file_that_breaks_in_its_middle_is_named(tmp_path, ingest, damage):
    urls = [f"http://a.example/{i}" for i in range(30_000)]
    text = "URL,TEXT\n" + "".join(f"{u},t\n" for u in urls)
    if damage == "csv":
        path = _put(tmp_path / "a.csv", (text + "one,two,three\n").encode())
    elif damage == "gzip":
        path = _put(tmp_path / "a.csv.gz", gzip.compress(text.encode())[:-5000])
    else:
        path = write(tmp_path / "a.parquet", url=urls)
        data = bytearray(path.read_bytes())
        data[len(data) // 4 : len(data) // 2] = bytes(len(data) // 4)
        path.write_bytes(data)
    with pytest.raises(RequestError, match=path.name):
        ingest(path)


def test_columns_option(tmp_path, ingest):
    path = write(tmp_path / "a.parquet", link=["http://a.example/1"], text=["t"], title=["T"])
    rows, _, _ = ingest(path, columns={"url": "LINK", "alt_text": "title"})
    assert (rows[0]["url"], rows[0]["alt_text"]) == ("http://a.example/1", "T")
    with pytest.raises(RequestError, match="no column lnk"):
        ingest(path, columns={"url": "lnk"})
    with pytest.raises(ValidationError, match="not a canonical column"):
        IngestSection(sources=["x"], columns={"link": "url"})


def test_a_filter_needs_its_column(tmp_path, ingest):
    path = write(tmp_path / "a.parquet", url=["http://a.example/1"])
    with pytest.raises(RequestError, match=r"states no punsafe, which ingest\.max_punsafe"):
        ingest(path, max_punsafe=0.5)


def test_two_columns_of_one_name_are_refused(tmp_path, ingest):
    path = _put(tmp_path / "a.csv", b"url,url\nhttp://a,http://b\n")
    with pytest.raises(RequestError, match="2 columns named url"):
        ingest(path)


def test_identity_follows_the_content(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", url=["http://a.example/1"])
    stage = IngestStage(IngestSection(sources=[str(path)]))
    before = stage.models()
    path.touch()
    assert stage.models() == before
    write(path, url=["http://a.example/2"])
    changed = stage.models()
    assert changed != before
    monkeypatch.setattr("stages.sources.find.HASHED_BELOW", 1)
    assert next(iter(stage.models().values())) == f"stat:{path.stat().st_size}:{path.stat().st_mtime_ns}"


def test_shards_come_out_while_the_file_is_read(tmp_path):
    lines = "".join(f'{{"url": "http://a.example/{i}"}}\n' for i in range(20_000))
    path = _put(tmp_path / "a.jsonl", lines.encode() + b"broken\n")
    stage = IngestStage(IngestSection(sources=[str(path)], shard_rows=100))
    shards = stage.process(MemoryGather(tmp_path, {}))
    assert [name for name, _ in itertools.islice(shards, 3)] == ["00000", "00001", "00002"]
    with pytest.raises(RequestError, match="line 20001"):
        list(shards)
