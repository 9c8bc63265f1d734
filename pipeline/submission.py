"""`submit`: the same run, as a Ray job on a cluster."""

import hashlib

import yaml

from cluster.submit import submit
from pipeline.config import load_config
from pipeline.storage import open_storage


def run_id(name: str, run_dir: str) -> str:
    """The run's name on a cluster: the same directory is the same run, so it is not submitted twice at a time."""
    return f"{name}-{hashlib.sha256(run_dir.encode()).hexdigest()[:8]}"


def submit_run_directory(
    config: str, overrides: list[str], run_dir: str, address: str, env: dict[str, str], python: str
) -> str:
    """Submit a run, or resume it where its last job has ended; returns the run id that `job` commands take.

    The configuration is checked here and travels resolved, as text: the cluster need not have the file. `env` are the
    environment variables of the job and its workers.

    Raises:
        RequestError: the configuration is wrong, the cluster does not answer, or the run is under way there.
    """
    location = open_storage(run_dir).location
    resolved = load_config(config, overrides, location)
    text = yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    name = run_id(resolved.name, location)
    submit(text, location, name, address, env=env, python=python)
    return name
