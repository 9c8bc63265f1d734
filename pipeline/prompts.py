"""`densefusion prompt`: what the model was sent about one row, or would be, made by the code that the stage uses."""

import base64
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from fusion.budget import counts_as_the_worker
from fusion.engine import BadInputError
from fusion.prompt import Messages
from fusion.request import CaptionRequest
from fusion.tokens import Estimate, ModelTokenizer, fetched_tokenizer_file, tokenizer_file
from pipeline.config import load_run, override_config
from pipeline.fingerprint import changes, stage_identity, with_inputs
from pipeline.graph import build_stages
from pipeline.identities import recorded_stages
from pipeline.ledger import query
from pipeline.memory import EarlierFiles, StageMemory
from pipeline.plan import NOT_DONE
from pipeline.storage import open_storage
from pipeline.store import CommittedImages, Store
from pipeline.work import inputs_of
from schemas.errors import IncompleteRunError, RequestError
from schemas.section import ModelRef
from stages.answer_book import AnswerBook
from stages.base import ShardInput, Stage
from stages.caption import CaptionStage, request_of
from stages.caption_rows import CaptionRows
from stages.caption_section import CaptionSection
from stages.caption_talk import CaptionTalks
from stages.priors import DecidedPriors

_UID = re.compile(r"[0-9a-f]{1,32}")
_UID_DIGITS = 32
_SHOWN = 5


def prompt_of(location: str, overrides: Sequence[str], uid: str) -> dict[str, Any]:
    """Everything about the request of one row, as `prompt --json` prints it; others rely on this shape.

    Args:
        overrides: `key.path=value`; with any the models are looked at anew, as `explain` does.
        uid: of a row that `select` took, or the first digits of one.

    Raises:
        RequestError: no such row, or several; a setting is wrong.
        IncompleteRunError: what the prompt is made of is not there yet.
    """
    storage = open_storage(location)
    config = load_run(location)
    if overrides:
        config = override_config(config, list(overrides), location)
    stages = build_stages(config) if overrides else recorded_stages(config, storage)
    stage = next(stage for stage in stages if isinstance(stage, CaptionStage))
    if overrides:
        stage.check()
    store = Store(storage)
    shard, uid = _find(store, stages, location, uid)
    rows = _row(store, stage, DecidedPriors(config.perceive), location, shard, uid)
    notes = _tokenizer_note(stage.config)
    request = request_of(stage.config, stage.identity["engine"])
    stage.identity = {**stage.identity, "prompt": request.prompt.version()}
    messages = request.prompt.render(rows.alt_texts[0], rows.priors_of(0))
    because = _differences(store, stage, shard)
    caption = _of_uid(store.table("caption", shard), uid) if NOT_DONE not in because else []
    stopped = _ledger(store, stages, f"stage = 'caption' and uid = '{uid}'") if not caption else []
    unready = stage.unready(rows).get(0)
    image = _image(request, rows)
    asked = unready is None and "error" not in image
    return {
        "run": location,
        "uid": uid,
        "url": rows.urls[0],
        "shard": shard,
        "sent": asked and not because,
        "because": because,
        "not_asked": unready.detail if unready else image.get("error"),
        "template": request.prompt.version(),
        "system": messages.system,
        "user": messages.user,
        "boxes": [dict(box) for box in messages.boxes],
        "boxes_beside": request.question(messages, "").boxes,
        "image": image,
        "tokens": _tokens(stage.config, request, messages),
        "cut": asdict(messages.cut),
        "repair": _repair(store, stage, request, rows) if asked and not because else None,
        "caption": caption[0] if caption else None,
        "stopped": stopped[0] if stopped else None,
        "notes": notes,
    }


def prompt_text(answer: dict[str, Any]) -> str:
    """The same for people."""
    return "\n".join([*_facts(answer), *_texts(answer)])


def _find(store: Store, stages: list[Stage], location: str, uid: str) -> tuple[str, str]:
    """Shard and whole uid of the one selected row whose uid begins so."""
    start = uid.strip().lower()
    if not _UID.fullmatch(start):
        raise RequestError(f"`{uid}` is no uid: give 32 hex digits or the first of them, as the dataset and ledger do.")
    found: list[tuple[str, str]] = []
    for shard in store.shards("select"):
        found += [(shard, one) for one in _beginning(store.table("select", shard, ["uid"]), start)]
        if found and len(start) == _UID_DIGITS:
            break
    if len(found) == 1:
        return found[0]
    if found:
        raise RequestError(
            f"{len(found):,} selected rows of {location} have uids that begin with {start}, such as "
            f"{', '.join(one for _, one in found[:_SHOWN])}. Give more digits."
        )
    if stopped := _ledger(store, stages, f"starts_with(uid, '{start}')"):
        lines = [f"{row['uid']} stopped at {row['stage']}: {row['reason']}{_detail(row)}" for row in stopped[:_SHOWN]]
        more = f"; and {len(stopped) - _SHOWN:,} more" if len(stopped) > _SHOWN else ""
        raise RequestError(
            f"No prompt was made: {'; '.join(lines)}{more}. Prompts are made of rows that `select` took."
        )
    before = stages[: [stage.name for stage in stages].index("select")]
    for stage in reversed(before):
        if any(_beginning(store.table(stage.name, shard, ["uid"]), start) for shard in store.shards(stage.name)):
            raise IncompleteRunError(
                f"The row {start} has come as far as `{stage.name}`; prompts are made of rows that `select` took. Go "
                f"on with the run; `densefusion explain {location}` says what is left."
            )
    raise RequestError(
        f"{location} has no row whose uid begins with {start}. uids are in the dataset's file names, in "
        f"`densefusion ledger {location} --sql 'select uid, url from ledger'` and in the report."
    )


def _detail(row: dict[str, Any]) -> str:
    return f" ({row['detail']})" if row["detail"] else ""


def _beginning(table: pa.Table, start: str) -> list[str]:
    uids = table.column("uid")
    return uids.filter(pc.starts_with(uids, start)).to_pylist()


def _ledger(store: Store, stages: list[Stage], where: str) -> list[dict[str, Any]]:
    columns, rows = query(store.storage, stages, f"select stage, uid, url, reason, detail from ledger where {where}")
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _row(store: Store, stage: CaptionStage, priors: DecidedPriors, location: str, shard: str, uid: str) -> CaptionRows:
    """The row as the stage has it."""
    tables = {}
    for name in inputs_of(stage):
        try:
            rows = _rows(store.table(name, shard), uid)
        except FileNotFoundError:
            rows = None
        if rows is None or not rows.num_rows:
            raise IncompleteRunError(
                f"`{name}` has not looked at the row {uid} yet (shard {shard}), so its prompt cannot be made. Go on "
                f"with the run; `densefusion explain {location}` says what is left."
            )
        tables[name] = rows
    return CaptionRows(ShardInput(shard, tables, CommittedImages(store), Path()), priors)


def _rows(table: pa.Table, uid: str) -> pa.Table:
    return table.filter(pc.equal(table.column("uid"), uid))


def _of_uid(table: pa.Table, uid: str) -> list[dict[str, Any]]:
    return _rows(table, uid).to_pylist()


def _differences(store: Store, stage: CaptionStage, shard: str) -> list[str]:
    """What the captions of the shard were made with that is otherwise now; NOT_DONE where there are none."""
    standing = store.commit(stage.name, shard)
    if standing is None:
        return [NOT_DONE]
    inputs = {name: store.content(name, shard) for name in inputs_of(stage)}
    now = with_inputs(stage_identity(stage), inputs)
    return [str(change) for change in changes(stage.name, standing.components, now)]


def _repair(store: Store, stage: CaptionStage, request: CaptionRequest, rows: CaptionRows) -> dict[str, Any] | None:
    """How the findings were given back, from the answers that the shard has kept; None where they were not."""
    book = AnswerBook(StageMemory(EarlierFiles(store, stage.name), rows.shard))
    book.look_up(rows.uids)
    judged = CaptionTalks(stage.config, request, rows, book).from_book(0)
    if judged is None or judged.repair is None:
        return None
    first, best = judged.repair.first, judged.repair.best
    return {
        "first": first.answer.text,
        "findings": [{"kind": str(one.kind), "detail": one.detail} for one in first.findings],
        "asked": judged.repair.asked,
        "tries": len(judged.repair.answers),
        "second": best.answer.text if best is not None else None,
    }


def _image(request: CaptionRequest, rows: CaptionRows) -> dict[str, Any]:
    """Format, size and bytes of the picture as it is sent, or the `error` that stops the row."""
    try:
        data = base64.b64decode(request.image_url(rows.image(0)).split(",", 1)[1])
    except BadInputError as error:
        return {"error": str(error)}
    except FileNotFoundError:
        raise IncompleteRunError(
            "The bytes of the picture are not in the run any more. `densefusion verify` says what else is damaged."
        ) from None
    with Image.open(io.BytesIO(data)) as picture:
        return {
            "format": (picture.format or "").lower(),
            "width": picture.width,
            "height": picture.height,
            "bytes": len(data),
        }


def _tokenizer_note(config: CaptionSection) -> list[str]:
    """Has the engine's tokenizer here where the worker has it; says so where that cannot be."""
    if counts_as_the_worker(config.budget, config.engine):
        return []
    try:
        fetched_tokenizer_file(config.budget.tokenizer or config.engine)
    except RequestError as error:
        return [f"Tokens are estimated, so more may be cut here than was for the engine. {error}"]
    return []


def _tokens(config: CaptionSection, request: CaptionRequest, messages: Messages) -> dict[str, Any]:
    """What the text takes, of what there is for it."""
    text = (messages.system, messages.user)
    counter, estimate = request.budget.counter, Estimate(config.budget.chars_per_token)
    counted = [one for one in (counter, *_known_tokenizer(config.engine)) if isinstance(one, ModelTokenizer)]
    return {
        "counted_by": counter.name,
        "estimated": sum(map(estimate.count, text)),
        "counted": sum(map(counted[0].count, text)) if counted else None,
        "boxes": request.budget.box_tokens * len(messages.boxes),
        "budget": request.budget.tokens,
        "window": config.engine.max_model_len,
        "image": config.budget.image_tokens,
        "reserve": config.budget.reserve,
        "answer": config.max_tokens,
    }


def _known_tokenizer(engine: ModelRef) -> Iterator[ModelTokenizer]:
    file = tokenizer_file(engine)
    if file is not None:
        yield ModelTokenizer(file)


def _facts(answer: dict[str, Any]) -> Iterator[str]:
    tokens, image, caption = answer["tokens"], answer["image"], answer["caption"]
    yield f"uid     {answer['uid']} (shard {answer['shard']})"
    yield f"url     {answer['url']}"
    yield f"sent    {_sent(answer)}"
    yield f"prompt  {answer['template']}"
    if "error" not in image:
        yield f"image   {image['width']} x {image['height']} {image['format']}, {image['bytes']:,} bytes"
    beside = answer["boxes_beside"]
    yield f"boxes   {'none' if beside is None else len(beside)} beside the text, {len(answer['boxes'])} in it"
    counted = f"{tokens['counted']:,} counted, " if tokens["counted"] is not None else ""
    yield (
        f"tokens  {counted}{tokens['estimated']:,} estimated, of {tokens['budget']:,} (window {tokens['window']:,} "
        f"- image {tokens['image']:,} - reserve {tokens['reserve']:,} - answer {tokens['answer']:,}); fitted by "
        f"{tokens['counted_by']}"
    )
    if caption is not None:
        yield f"        the engine counted {caption['prompt_tokens']:,} in the row's requests, image included"
    counts = {name.replace("_", " "): n for name, n in answer["cut"].items() if name != "too_long"}
    gone = ", ".join(f"{n:,} {name}" for name, n in counts.items() if n)
    yield f"cut     {gone or 'nothing'}{'; too long even so' if answer['cut']['too_long'] else ''}"
    yield from (f"note    {note}" for note in answer["notes"])


def _sent(answer: dict[str, Any]) -> str:
    if answer["not_asked"] is not None:
        return f"no: {answer['not_asked']}"
    if answer["because"] == [NOT_DONE]:
        return "not yet"
    if answer["because"]:
        return "\n        ".join(["not like this; since these captions were made:", *answer["because"]])
    return "yes"


def _texts(answer: dict[str, Any]) -> Iterator[str]:
    yield from ("", "--- system", answer["system"], "", "--- user", answer["user"])
    for box in answer["boxes_beside"] or ():
        yield f"box beside: {box}"
    caption, stopped, repair = answer["caption"], answer["stopped"], answer["repair"]
    if repair is not None:
        yield from ("", "--- first answer", repair["first"], "", "--- user, again", repair["asked"])
        of = f", the best of {repair['tries']}" if repair["tries"] > 1 else ""
        said = "none: the engine refused the longer conversation" if repair["second"] is None else repair["second"]
        yield from ("", f"--- second answer{of}", said)
    if caption is not None:
        again = ", the second answer after a repair" if caption["repaired"] else ""
        end = f"{caption['finish_reason']}, {caption['completion_tokens']:,} tokens{again}"
        yield from ("", f"--- answer ({end})", caption["caption"], "")
        yield from ([f"- {one['kind']}: {one['detail']}" for one in caption["findings"]] or ["no findings"])
    elif stopped is not None:
        yield from ("", f"--- stopped at caption: {stopped['reason']}", stopped["detail"])
