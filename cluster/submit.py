"""A run as a Ray job: submit, status, logs, stop.

The first submission's id is the run id; a resumption's is `<run id>.2`, `.3`, …, because Ray does not support an id
that was used before, and because the logs of the earlier ones are kept. Ray refuses an id twice, so of two people who
submit the same run at once only one succeeds; and a run whose job is still alive is refused here.

The resolved configuration travels as the job's working directory: one file, uploaded through the Jobs API, so that the
submitting machine needs no access to the run directory. The code does not travel; it is in the cluster's image.
"""

import os
import re
import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import RequestError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

CONFIG_FILE = "run.yaml"

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

# Keys of the job's metadata, by which the jobs of a run are found again.
_RUN, _ATTEMPT = "densefusion_run", "densefusion_attempt"

_CONNECT_SECONDS = 10.0
_STOP_SECONDS = 60.0


@dataclass(frozen=True)
class JobState:
    """The latest job of a run.

    Attributes:
        run_id: the run.
        submission_id: Ray's name of the job.
        attempt: which submission of this run it is, from 1.
        status: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
        message: Ray's sentence about it, with the log's tail after a failure.
        exit_code: of the entrypoint, None while it runs or where Ray does not know it.
        started, ended: seconds since the epoch, None where it has not.
    """

    run_id: str
    submission_id: str
    attempt: int
    status: str
    message: str
    exit_code: int | None
    started: float | None
    ended: float | None

    @property
    def over(self) -> bool:
        """Whether the job has ended, in whatever way."""
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


def entrypoint(run_dir: str, python: str = "python", config: str = CONFIG_FILE) -> str:
    """The shell command of the job: the same `run` that a user types, on the cluster it finds itself in.

    Args:
        run_dir: run directory as the cluster sees it, on a file system that all its nodes share.
        python: interpreter of the cluster's image.
        config: a preset's name, or a YAML file as the job sees it.
    """
    return shlex.join([python, "-m", "pipeline.cli", "run", config, "--run-dir", run_dir, "--address", "auto"])


def submit(
    config: str,
    run_dir: str,
    run_id: str,
    address: str,
    *,
    env: Mapping[str, str] | None = None,
    python: str = "python",
) -> str:
    """Submit a run, or resume it where its last job has ended.

    Args:
        config: text of the configuration, YAML.
        run_dir: run directory as the cluster sees it.
        run_id: name of the run on this cluster.
        address: the head's dashboard, `http://host:8265`, or `auto` on a machine of the cluster.
        env: environment variables of the job and its workers.
        python: interpreter of the cluster's image.

    Returns:
        The submission id.

    Raises:
        RequestError: as `submit_run`.
    """
    with tempfile.TemporaryDirectory(prefix="submit-") as folder:
        (Path(folder) / CONFIG_FILE).write_text(config)
        return submit_run(address, run_id, entrypoint(run_dir, python), env, {"run_dir": run_dir}, Path(folder))


def submit_run(
    address: str,
    run_id: str,
    command: str,
    env: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
    working_dir: Path | None = None,
) -> str:
    """Submit a shell command as the next job of a run.

    Args:
        address, run_id, env: as in `submit`.
        command: what the job runs, by `/bin/sh`.
        metadata: kept beside the job.
        working_dir: small local folder that is copied to where the job runs.

    Returns:
        The submission id.

    Raises:
        RequestError: the run id is not one, the cluster does not answer or refuses us, or a job of this run is still
            alive.
    """
    if not RUN_ID.fullmatch(run_id):
        raise RequestError(
            f"The run id {run_id!r} cannot name a Ray job: take up to 63 letters, digits, `.`, `_` and `-`, "
            "beginning with a letter or a digit."
        )
    runtime_env: dict[str, object] = {"env_vars": dict(env or {})}
    if working_dir is not None:
        runtime_env["working_dir"] = str(working_dir)
    with _client(address) as client:
        last = _latest(client, run_id)
        if last is not None and not last.over:
            raise RequestError(_alive(run_id, address, last.submission_id, last.status))
        attempt = last.attempt + 1 if last else 1
        submission_id = run_id if attempt == 1 else f"{run_id}.{attempt}"
        try:
            return client.submit_job(
                entrypoint=command,
                submission_id=submission_id,
                runtime_env=runtime_env,
                metadata={**(metadata or {}), _RUN: run_id, _ATTEMPT: str(attempt)},
            )
        except RuntimeError as error:
            if "already exists" in str(error):
                raise RequestError(_alive(run_id, address, submission_id, "submitted by somebody else")) from error
            raise


def job_status(address: str, run_id: str) -> JobState:
    """The latest job of a run.

    Raises:
        RequestError: the cluster does not answer or refuses us, or knows no job of this run.
    """
    with _client(address) as client:
        return _known(client, address, run_id)


def job_logs(address: str, run_id: str) -> str:
    """What the latest job of a run has printed so far. Raises as `job_status`."""
    with _client(address) as client:
        return client.get_job_logs(_known(client, address, run_id).submission_id)


def stop_job(address: str, run_id: str) -> JobState:
    """End the latest job of a run and wait until it has ended; what it committed stays. Raises as `job_status`."""
    with _client(address) as client:
        state = _known(client, address, run_id)
        if not state.over:
            client.stop_job(state.submission_id)
        deadline = time.monotonic() + _STOP_SECONDS
        while not state.over and time.monotonic() < deadline:
            time.sleep(0.2)
            state = _known(client, address, run_id)
        return state


def _known(client: "JobSubmissionClient", address: str, run_id: str) -> JobState:
    state = _latest(client, run_id)
    if state is None:
        raise RequestError(
            f"The cluster at {address} knows no job of run {run_id!r}. `ray job list --address {address}` shows what "
            "it knows; jobs are forgotten when the cluster's head restarts, runs are not: submit it again to resume it."
        )
    return state


def _latest(client: "JobSubmissionClient", run_id: str) -> JobState | None:
    jobs = [job for job in client.list_jobs() if (job.metadata or {}).get(_RUN) == run_id]
    return max((_state(job) for job in jobs), key=lambda state: state.attempt, default=None)


def _state(job: "JobDetails") -> JobState:
    metadata = job.metadata or {}
    return JobState(
        run_id=metadata[_RUN],
        submission_id=job.submission_id or "",
        attempt=int(metadata[_ATTEMPT]),
        status=str(job.status.value),
        message=job.message or "",
        exit_code=job.driver_exit_code,
        started=job.start_time / 1000 if job.start_time else None,
        ended=job.end_time / 1000 if job.end_time else None,
    )


def _alive(run_id: str, address: str, submission_id: str, how: str) -> str:
    return (
        f"Run {run_id!r} has a job on the cluster at {address} already ({submission_id}, {how}). Wait for it, or stop "
        f"it with `ray job stop {submission_id} --address {address}`, and submit again: it will resume."
    )


@contextmanager
def _client(address: str) -> Iterator["JobSubmissionClient"]:
    """A client of the Jobs API, and the errors of talking to it as ours."""
    import httpx
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    if address != "auto" and not address.startswith(("http://", "https://")):
        raise RequestError(
            f"The address {address!r} cannot take jobs. Give the URL of the head's dashboard, such as "
            "http://head:8265, or `auto` on a machine of the cluster."
        )
    headers = _token_header()
    try:
        if address != "auto":
            # Asked first with a deadline, because Ray's client has none.
            httpx.get(f"{address.rstrip('/')}/api/version", headers=headers, timeout=_CONNECT_SECONDS)
        client = JobSubmissionClient(address, headers=headers)
        yield client
    except AuthenticationError as error:
        raise RequestError(
            f"The Ray cluster at {address} refused the token, or wants one. Set RAY_AUTH_TOKEN (or "
            "RAY_AUTH_TOKEN_PATH) to the token of that cluster; `ray get-auth-token` prints it on the head."
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL, ConnectionError) as error:
        raise RequestError(
            f"No Ray head answers at {address} ({str(error).strip()}). Check that its dashboard is up and that this "
            "machine reaches it (on Kubernetes: `kubectl port-forward service/<cluster>-head-svc 8265`)."
        ) from error


def _token_header() -> dict[str, str]:
    """The token that Ray itself would use. Its Jobs client looks for one only where RAY_AUTH_MODE is `token`."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN")
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not token and file.is_file():
        token = file.read_text()
    return {"Authorization": f"Bearer {token.strip()}"} if token else {}
