import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.doctor import examine

COMMANDS = (
    "run",
    "status",
    "explain",
    "ledger",
    "prompt",
    "cost",
    "verify",
    "retry",
    "report",
    "export",
    "submit",
    "doctor",
    "gc",
    "repair",
    "dedup-sweep",
    "evaluate",
)


def densefusion(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *words], capture_output=True, text=True, check=False, timeout=120
    )


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    done = densefusion("--help")
    assert done.returncode == 0
    assert all(f" {command} " in done.stdout for command in COMMANDS)
    code = "import sys, pipeline.cli; print([m for m in ('torch', 'ray', 'pyarrow', 'pydantic') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command", ["status", "explain", "ledger", "cost", "verify", "retry", "report", "gc", "repair", "dedup-sweep"]
)
def test_what_is_no_run_directory_is_said_in_one_paragraph(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["densefusion", command, str(tmp_path / "nothing")])
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert ended.value.code == 2
    assert "is not a run directory" in " ".join(capsys.readouterr().err.split())


def test_an_export_must_say_where_to(tmp_path: Path) -> None:
    done = densefusion("export", str(tmp_path))
    assert done.returncode == 2
    assert "--hub ORG/NAME" in done.stderr


@pytest.mark.ray
def test_doctor_finds_this_machine_able_and_a_bad_path_not(ray_session: None, tmp_path: Path) -> None:
    findings = {finding.name: finding for finding in examine("demo", [])}
    assert all(finding.ok for finding in findings.values()), findings
    assert {"python", "torchvision imports", "vllm", "ray", "scene world"} <= findings.keys()
    bad = ["world=null", f"ingest.sources=[{tmp_path}/none.parquet]"]
    broken = {finding.name: finding for finding in examine("demo", bad)}
    assert not broken["ingest"].ok
    assert "none.parquet" in broken["ingest"].found
    assert not broken["caption"].ok
    assert broken["download"].ok
    assert json.dumps([finding.__dict__ for finding in broken.values()])
