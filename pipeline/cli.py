"""What users type. Heavy modules are imported by the command that needs them: `--help` answers at once."""

import json
import shlex
import shutil
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.errors import (
    EXIT_BAD_REQUEST,
    EXIT_DONE,
    EXIT_FAILED_SHARDS,
    IncompleteRunError,
    RequestError,
    SetupError,
)

if TYPE_CHECKING:
    from pipeline.runner import Result

app = typer.Typer(
    help="Build datasets of images with hyper-detailed captions, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
job = typer.Typer(help="Look after a run that was submitted as a Ray job.", no_args_is_help=True)
app.add_typer(job, name="job")

out = Console(soft_wrap=False)
err = Console(stderr=True)

RunDir = Annotated[str, typer.Argument(metavar="RUN", help="run directory")]
RunDirOption = Annotated[str, typer.Option("--run-dir", metavar="DIR", help="run directory; made if missing")]
ConfigArg = Annotated[
    str, typer.Argument(metavar="CONFIG", help="preset (demo, single-node, densefusion-1m, meta-set) or YAML")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a setting, e.g. caption.max_tokens=96")
]
AsJson = Annotated[bool, typer.Option("--json", help="answer in JSON")]
Address = Annotated[str, typer.Option(help="address of the Ray head's job server, http://host:8265")]


def main() -> None:
    """Run the command line; errors are one paragraph, and the exit code says whose turn it is."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except RequestError as error:
        _fail(str(error), EXIT_BAD_REQUEST)
    except (SetupError, IncompleteRunError) as error:
        _fail(str(error), EXIT_FAILED_SHARDS)


@app.command()
def run(
    config: ConfigArg,
    run_dir: RunDirOption,
    set_: Overrides = None,
    address: str | None = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="stop after this stage, such as select")] = None,
) -> None:
    """Run, or resume, until the dataset is there."""
    from pipeline.config import load_config

    overrides = [*(set_ or []), *([f"ray.address={address}"] if address else [])]
    _run(load_config(config, overrides, run_dir), run_dir, again=False, until=until)


@app.command()
def retry(run_dir: RunDir, set_: Overrides = None) -> None:
    """Try the failed shards of a run again, and go on with it."""
    from pipeline.config import load_run, override_config

    _run(override_config(load_run(run_dir), set_ or [], run_dir), run_dir, again=True)


@app.command()
def status(run_dir: RunDir, as_json: AsJson = False) -> None:
    """Show where a run is: shards, rows, and what was dropped, stage by stage."""
    from pipeline.config import load_run
    from pipeline.finish import View
    from pipeline.lease import holder_of
    from pipeline.storage import open_storage
    from pipeline.summary import status_json

    view = View(load_run(run_dir), run_dir)
    answer = status_json(run_dir, view.summary, view.plans)
    if as_json:
        _print_json(answer)
        return
    table = Table("stage", "shards", "rows in", "rows out", "seconds", "dropped", box=None, pad_edge=False)
    for stage in answer["stages"]:
        failed = f" [red]({stage['failed']} failed)[/]" if stage["failed"] else ""
        drops = ", ".join(f"{reason} {count:,}" for reason, count in stage["dropped"].items())
        shards = f"{stage['committed']}/{stage['shards']}{failed}"
        table.add_row(
            stage["name"], shards, f"{stage['rows_in']:,}", f"{stage['rows_out']:,}", f"{stage['seconds']:,.1f}", drops
        )
    out.print(table)
    holder = holder_of(open_storage(run_dir))
    if holder is not None:
        out.print(f"running: process {holder['pid']} on {holder['host']}")
    out.print("complete" if answer["complete"] else f"not complete; `densefusion explain {run_dir}` says what is left")


@app.command()
def explain(run_dir: RunDir, set_: Overrides = None, as_json: AsJson = False) -> None:
    """Say which shards would be done by the next run, and which field makes them, before anything is."""
    from pipeline.config import load_run, override_config
    from pipeline.graph import build_stages
    from pipeline.plan import NOT_DONE, plan
    from pipeline.storage import open_storage
    from pipeline.summary import explain_json

    config = override_config(load_run(run_dir), set_ or [], run_dir)
    plans = plan(open_storage(run_dir), build_stages(config))
    if as_json:
        _print_json(explain_json(plans))
        return
    busy = [item for item in plans if item.rerun]
    if not busy:
        out.print("Nothing would be done: every shard is committed and up to date.")
        return
    table = Table("stage", "shards", "because", box=None, pad_edge=False)
    for item in busy:
        shown = [*item.changes, *(name for name in item.because if not any(c.startswith(name) for c in item.changes))]
        table.add_row(item.name, f"{item.rerun}" if item.final else f"{item.rerun} or more", "\n".join(shown))
    out.print(table)
    if any(item.name == "caption" and NOT_DONE not in item.because for item in busy):
        out.print("caption: what the engine has answered is taken over; it is asked where a request itself is new.")


@app.command()
def ledger(
    run_dir: RunDir,
    sql: Annotated[
        str | None, typer.Option(help="query over the table `ledger` (uid, url, stage, reason, detail)")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask why rows stopped: counts by stage and reason, or your own SQL."""
    from pipeline.config import load_run
    from pipeline.graph import build_stages
    from pipeline.ledger import SUMMARY, query
    from pipeline.storage import open_storage

    columns, rows = query(open_storage(run_dir), build_stages(load_run(run_dir)), sql or SUMMARY)
    if as_json:
        _print_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")  # a URL that is cut is of no use
    for row in rows:
        table.add_row(*(str(value) for value in row))
    out.print(table)


@app.command()
def prompt(
    run_dir: RunDir,
    uid: Annotated[str, typer.Option(help="of the row, or its first digits where they are no other's")],
    set_: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show what the model was sent about a row, or would be: texts, boxes, tokens, what was cut; and its answer."""
    from pipeline.prompts import prompt_of, prompt_text

    answer = prompt_of(run_dir, set_ or [], uid)
    if as_json:
        _print_json(answer)
    else:
        out.print(prompt_text(answer), soft_wrap=True, markup=False, highlight=False)


@app.command()
def cost(run_dir: RunDir, as_json: AsJson = False) -> None:
    """Add up what the captions have cost, where caption.spend has prices: by model, per thousand, and what is left."""
    from pipeline.cost import cost_of, money, nothing_paid

    answer = cost_of(run_dir)
    if as_json:
        _print_json(answer)
        return
    if not answer["models"]:
        out.print(nothing_paid(answer), soft_wrap=True, markup=False, highlight=False)
    else:
        columns = ("answers", "images", "prompt tokens", "of them cached", "answer tokens", "cost", "per 1,000 images")
        table = Table("model", *columns, box=None, pad_edge=False)
        for one in answer["models"]:
            names = ("answers", "images", "prompt_tokens", "cached_tokens", "completion_tokens")
            prices = (money(one[name], one["currency"]) for name in ("cost", "per_thousand_images"))
            table.add_row(Text(one["model"]), *(f"{one[name]:,}" for name in names), *map(Text, prices))
        out.print(table)
    for one in answer["total"]:
        each = one["per_thousand_captions"]
        kept = f"; {money(each, one['currency'])} per 1,000 of {answer['captions']:,} captions" if each else ""
        out.print(f"spent: {money(one['cost'], one['currency'])}{kept}", markup=False, highlight=False)
    if (budget := answer["budget"]) is not None:
        left, limit = (money(budget[name], budget["currency"]) for name in ("left", "budget"))
        out.print(f"left of the budget: {left} of {limit}", markup=False, highlight=False)


@app.command()
def verify(run_dir: RunDir, as_json: AsJson = False) -> None:
    """Read every committed byte and check it: sha256, rows, and that every row ended once."""
    from pipeline.config import load_run
    from pipeline.finish import verify_run

    problems = verify_run(load_run(run_dir), run_dir)
    if as_json:
        _print_json({"ok": not problems, "problems": [str(p) for p in problems]})
    elif problems:
        for problem in problems:
            out.print(str(problem), markup=False, highlight=False)
        out.print(
            f"{len(problems)} problems. `densefusion repair {run_dir}` takes the broken shards back to be redone."
        )
    else:
        out.print("Everything is as it was committed, and every row ended once.")
    raise typer.Exit(EXIT_FAILED_SHARDS if problems else EXIT_DONE)


@app.command()
def repair(run_dir: RunDir, as_json: AsJson = False) -> None:
    """Take back the commits whose objects are damaged; the next run makes those shards anew."""
    from pipeline.config import load_run
    from pipeline.finish import verify_run
    from pipeline.lease import Lease
    from pipeline.storage import open_storage
    from pipeline.verify import withdraw_broken

    storage = open_storage(run_dir)
    with Lease(storage):
        withdrawn = withdraw_broken(storage, verify_run(load_run(run_dir), run_dir))
    if as_json:
        _print_json({"withdrawn": [str(p) for p in withdrawn]})
        return
    for problem in withdrawn:
        out.print(f"taken back: {problem}", markup=False, highlight=False)
    out.print(f"{len(withdrawn)} problems dealt with; run again to make those shards anew.")


@app.command()
def gc(run_dir: RunDir, as_json: AsJson = False) -> None:
    """Delete what no commit names (of attempts that died, and results that were replaced)."""
    from pipeline.config import load_run
    from pipeline.graph import build_stages
    from pipeline.lease import Lease
    from pipeline.storage import open_storage
    from pipeline.verify import collect_garbage

    storage = open_storage(run_dir)
    with Lease(storage):
        count, size = collect_garbage(storage, build_stages(load_run(run_dir)))
    if as_json:
        _print_json({"objects": count, "bytes": size})
    else:
        out.print(f"{count} files deleted, {size / 1e6:,.1f} MB.")


@app.command()
def report(run_dir: RunDir, as_json: AsJson = False) -> None:
    """Write the HTML report of what is there so far."""
    from pipeline.config import load_run
    from pipeline.finish import write_report

    path = write_report(load_run(run_dir), run_dir)
    if as_json:
        _print_json({"report": str(path)})
    else:
        out.print(f"report: {path}", soft_wrap=True)


@app.command("dedup-sweep")
def dedup_sweep(
    run_dir: RunDir,
    epsilon: Annotated[
        str | None, typer.Option(metavar="E1,E2,...", help="thresholds to try; the run's own is always among them")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="about so many rows, in whole clusters drawn by seed")] = 50_000,
    as_json: AsJson = False,
) -> None:
    """Show what other values of dedup.epsilon would remove, with pairs to look at; `dedup` need not have run."""
    from pipeline.config import load_run
    from pipeline.finish import sweep_dedup
    from pipeline.sweep import EPSILONS, parse_epsilons

    asked = parse_epsilons(epsilon) if epsilon else EPSILONS
    answer = sweep_dedup(load_run(run_dir), run_dir, asked, rows)
    if as_json:
        _print_json(answer)
        return
    rules = list(dict.fromkeys(point["rule"] for point in answer["points"]))
    table = Table("epsilon", "cosine above", *(f"{rule} removes" for rule in rules), box=None, pad_edge=False)
    for value in dict.fromkeys(point["epsilon"] for point in answer["points"]):
        points = [point for point in answer["points"] if point["epsilon"] == value]
        own = "  this run" if value == answer["own"] else ""
        shares = [f"{point['share']:.1%} in {point['groups']:,} groups" for point in points]
        table.add_row(f"{value:g}{own}", f"{1 - value:g}", *shares)
    out.print(table)
    out.print(f"of {answer['compared']:,} rows in {answer['clusters']:,} clusters; pairs to look at: {answer['page']}")


@app.command()
def export(
    run_dir: RunDir,
    hub: Annotated[str | None, typer.Option(metavar="ORG/NAME", help="publish to this Hub dataset")] = None,
    to: Annotated[Path | None, typer.Option(metavar="FOLDER", help="copy to this folder")] = None,
    public: Annotated[bool, typer.Option(help="make the Hub dataset public; it is private by default")] = False,
    as_json: AsJson = False,
) -> None:
    """Publish the finished dataset: to the Hugging Face Hub, or to a folder. Resumes where it stopped."""
    from pipeline.config import load_run
    from pipeline.finish import publish

    if (hub is None) == (to is None):
        raise RequestError("Say where to: `--hub ORG/NAME` or `--to FOLDER`, one of them.")

    def show(done: int, total: int) -> None:
        err.print(f"{done} of {total} files are there", highlight=False)

    answer = publish(load_run(run_dir), run_dir, hub=hub, folder=to, public=public, progress=show)
    if as_json:
        _print_json(answer)
    else:
        out.print(f"{answer['uploaded']} files sent, {answer['skipped']} were there already: {answer['where']}")


@app.command()
def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="recipe (such as densefusion-prealign) or YAML")],
    set_: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train a fusion model; the same command goes on after a stop. Several GPUs: accelerate launch -m fusion.train."""
    from fusion.train.run import train
    from fusion.train.section import load_section

    outcome = train(load_section(config, set_ or []), shlex.join(["densefusion", *sys.argv[1:]]))
    if outcome is None:
        return  # not the first of several processes
    if as_json:
        _print_json(asdict(outcome))
        return
    loss = "" if outcome.loss is None else f", loss {outcome.loss:.4f}"
    out.print(
        f"{outcome.steps:,} steps, {outcome.epochs:g} epochs{loss}, {outcome.seconds / 60:,.0f} minutes",
        highlight=False,
    )
    for reason, count in outcome.bad_rows.items():
        out.print(f"{count:,} of {outcome.rows:,} rows could not be used: {reason}", markup=False, highlight=False)
    out.print(f"model: {outcome.model}", soft_wrap=True, markup=False, highlight=False)


@app.command()
def evaluate(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="evaluation (scene-world) or YAML")],
    set_: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Hold captions against what is true of their pictures; each figure with its number and interval."""
    from fusion.evaluate.evaluation import evaluate
    from fusion.evaluate.section import load_section

    def say(text: str) -> None:
        err.print(text, highlight=False)

    answer = evaluate(load_section(config, set_ or []), say)
    if as_json:
        _print_json(answer)
        return
    names = list(answer["captioners"])
    table = Table("metric", *names, "n", box=None, pad_edge=False)
    for metric in dict.fromkeys(metric for one in answer["captioners"].values() for metric in one["figures"]):
        figures = [answer["captioners"][name]["figures"].get(metric) for name in names]
        shown = [f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]" if one else "" for one in figures]
        counts = dict.fromkeys(f"{one['n']:,.0f}" for one in figures if one)
        less = " (less is better)" if metric in answer["less_is_better"] else ""
        table.add_row(Text(f"{metric}{less}"), *(Text(one) for one in shown), " / ".join(counts))
    out.print(table)
    for name, one in answer["captioners"].items():
        failed = f"; {one['failed']} without an answer: {one['first_failure']}" if one["failed"] else ""
        out.print(
            f"{name}: {one['words']:.0f} words a caption, {one['empty']} empty{failed}", markup=False, highlight=False
        )
    level = f"{answer['level']:.0%}"
    out.print(
        f"{answer['rows']:,} pictures; in brackets {level} bootstrap intervals over pictures.",
        highlight=False,
        markup=False,
    )


@app.command()
def submit(
    config: ConfigArg,
    run_dir: Annotated[str, typer.Option("--run-dir", metavar="DIR", help="on storage that the cluster shares")],
    address: Address,
    set_: Overrides = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="environment variable of the job, such as HF_HOME")
    ] = None,
    python: Annotated[str, typer.Option(help="interpreter on the cluster that has densefusion")] = "python",
    as_json: AsJson = False,
) -> None:
    """Submit the run as a Ray job. One run is not submitted twice at a time; one that has ended is resumed."""
    from pipeline.submission import submit_run_directory

    if unset := [item for item in env or [] if "=" not in item]:
        raise RequestError(f"--env takes NAME=VALUE, got `{unset[0]}`.")
    variables = dict(item.split("=", 1) for item in env or [])
    run_id = submit_run_directory(config, set_ or [], run_dir, address, variables, python)
    if as_json:
        _print_json({"id": run_id, "address": address})
    else:
        out.print(f"submitted: {run_id}", soft_wrap=True)
        out.print(f"follow it: densefusion job logs {run_id} --address {address}", soft_wrap=True, highlight=False)


@job.command("status")
def job_status(run_id: str, address: Address, as_json: AsJson = False) -> None:
    """State of a submitted run, as Ray has it."""
    from cluster.submit import job_status

    state = job_status(address, run_id)
    if as_json:
        _print_json(asdict(state))
    else:
        out.print(f"{state.status}  {state.submission_id}  {state.message}", soft_wrap=True, highlight=False)


@job.command("logs")
def job_logs(run_id: str, address: Address) -> None:
    """What a submitted run has printed."""
    from cluster.submit import job_logs

    sys.stdout.write(job_logs(address, run_id))


@job.command("stop")
def job_stop(run_id: str, address: Address) -> None:
    """Stop a submitted run; submitting it again resumes it."""
    from cluster.submit import stop_job

    out.print(f"{stop_job(address, run_id).status}; submit it again to go on.")


@app.command()
def doctor(
    config: Annotated[
        str | None, typer.Argument(metavar="[CONFIG]", help="check what this configuration needs")
    ] = None,
    set_: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Is this machine able to run it: packages, engines, devices, memory, disk, limits."""
    from pipeline.doctor import examine

    findings = examine(config, set_ or [])
    if as_json:
        _print_json({"ok": all(f.ok for f in findings), "checks": [f.__dict__ for f in findings]})
    else:
        for finding in findings:
            mark = "[green]ok[/]  " if finding.ok else "[red]FAIL[/]"
            out.print(f"{mark} {finding.name}: {finding.found}", highlight=False)
            if not finding.ok and finding.advice:
                out.print(f"     {finding.advice}", highlight=False)
    raise typer.Exit(EXIT_DONE if all(f.ok for f in findings) else EXIT_FAILED_SHARDS)


def _run(config: Any, run_dir: str, *, again: bool, until: str | None = None) -> None:
    from pipeline import runner
    from pipeline.finish import finish
    from pipeline.progress import LiveProgress
    from pipeline.storage import open_storage
    from pipeline.world import scene_world

    try:
        with scene_world(config, run_dir, out.print) as ready:
            progress = LiveProgress(out, open_storage(run_dir))
            if again:
                result = runner.retry(ready, run_dir, progress)
            else:
                result = runner.run(ready, run_dir, progress, until)
    except KeyboardInterrupt:
        _fail("Stopped. What was committed stays; the same command goes on from there.", 128 + signal.SIGINT)
    _close(result, run_dir, finish(ready, run_dir), until)


def _close(result: "Result", run_dir: str, places: dict[str, str], until: str | None) -> None:
    """What a person needs at the end: what failed, or where everything is and what to type next."""
    if result.failures:
        lines = [f"  {f.stage} {f.shard}: {f.error.splitlines()[0][:200]}" for f in result.failures[:5]]
        more = f"\n  and {len(result.failures) - 5} more" if len(result.failures) > 5 else ""
        raise IncompleteRunError(
            f"{len(result.failures)} shards failed after their retries:\n"
            + "\n".join(lines)
            + more
            + f"\nTracebacks are in {run_dir}/<stage>/failures/. When the cause is mended: densefusion retry {run_dir}"
        )
    asked = f" up to {until}" if until else ""
    done = f"Done{asked}." if result.did else f"Nothing to do: every shard{asked} is committed and up to date."
    out.print(done, style="bold")
    for name, place in places.items():
        out.print(f"  {name:8} {place}", soft_wrap=True, highlight=False)
    out.print("Next:")
    further = [f"explain {run_dir} --set caption.max_tokens=96", f"export {run_dir} --hub ORG/NAME"]
    for words in (f"ledger {run_dir}", *([f"status {run_dir}"] if until else further)):
        out.print(f"  {_command()} {words}", soft_wrap=True, highlight=False)


def _command() -> str:
    """This program as the user can type it here."""
    typed = Path(sys.argv[0])
    found = shutil.which("densefusion")
    return "densefusion" if typed.name != "densefusion" or found == str(typed.absolute()) else str(typed)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def _fail(message: str, code: int) -> NoReturn:
    err.print(Text.assemble(("error:", "bold red"), " ", message), soft_wrap=True)
    raise SystemExit(code)


def _interrupt(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
