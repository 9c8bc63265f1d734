"""A CUDA-built torchvision beside a CPU torch loads in every kind of process; matching builds are left alone."""

import json
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import pytest

from cluster.torchvision_cpu import is_mismatched

ROOT = Path(__file__).parents[2]

mismatched = pytest.mark.skipif(not is_mismatched("torchvision"), reason="torchvision and torch are of one build here")


def python(code: str, *options: str, path: Path | None = None) -> str:
    """What a fresh interpreter prints, run away from the repository so that only what is installed helps it."""
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd="/",
        env={"PYTHONPATH": str(path)} if path else {},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What a fresh process finds; one for several tests, because these libraries take seconds to import."""
    answer: dict[str, Any] = json.loads(
        python(
            """
            import importlib.util, json
            import transformers.audio_utils
            import torch, torchvision
            from torchvision.transforms.v2 import functional
            seen = {"resized": functional.resize(torch.zeros(3, 8, 8), [4, 4]).shape}
            one, other = torch.tensor([[0, 0, 2, 2.0]]), torch.tensor([[0, 0, 2, 1.0]])
            seen["overlap"] = torchvision.ops.box_iou(one, other).item()
            try:
                torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
            except RuntimeError as error:
                seen["nms"] = str(error)
            for package in ("torchaudio", "torchcodec"):
                seen[package] = [str(importlib.util.find_spec(package))]
                try:
                    importlib.import_module(package)
                except ModuleNotFoundError:
                    seen[package].append("absent")
            print(json.dumps(seen))
            """
        )
    )
    return answer


def test_torchvision_and_transformers_import_in_a_fresh_process(seen: dict[str, Any]) -> None:
    assert (seen["resized"], seen["overlap"]) == ([3, 4, 4], 0.5)


@mismatched
def test_an_operator_without_kernel_says_so(seen: dict[str, Any]) -> None:
    assert "Couldn't load custom C++ ops" in seen["nms"]


@mismatched
@pytest.mark.parametrize("package", ["torchaudio", "torchcodec"])
def test_what_would_fail_on_import_looks_absent(seen: dict[str, Any], package: str) -> None:
    assert seen[package] == ["None", "absent"]


def test_spawned_child(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import multiprocessing\n"
        "def child(queue):\n"
        "    import torchvision\n"
        "    queue.put(torchvision.ops.box_area.__name__)\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    queue = context.Queue()\n"
        "    process = context.Process(target=child, args=(queue,))\n"
        "    process.start()\n"
        "    print(queue.get(timeout=60))\n"
        "    process.join()\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "box_area"


@pytest.mark.ray
def test_ray_worker(ray_session: None) -> None:
    import ray

    @ray.remote(num_cpus=0.5)
    def task() -> str:
        import torchvision

        return torchvision.ops.box_area.__name__

    assert ray.get(task.remote(), timeout=120) == "box_area"


def build(folder: Path, torch_cuda: str, label: str) -> Path:
    """Packages with the names and version files of torch, torchvision and torchaudio, and nothing else in them."""
    for name, version in [
        ("torch", f"__version__ = '2.13.0'\ncuda: str | None = {torch_cuda}\n"),
        ("torchvision", f"__version__ = '0.28.0{label}'\n"),
        ("torchaudio", f"__version__ = '2.11.0{label}'\n"),
    ]:
        (folder / name).mkdir()
        (folder / name / "version.py").write_text(version)
        (folder / name / "__init__.py").write_text(f"from .version import __version__\nprint({name!r}, end=' ')\n")
    return folder


@pytest.mark.parametrize(("torch_cuda", "label"), [("'13.0'", "+cu130"), ("None", "+cpu"), ("None", "")])
def test_matching_builds_are_left_alone(tmp_path: Path, torch_cuda: str, label: str) -> None:
    """The fake torch has no `library`, so that declaring operators would fail."""
    printed = python(
        """
        import torch, torchvision, torchaudio
        print(type(torchvision.__spec__.loader).__name__)
        """,
        path=build(tmp_path, torch_cuda, label),
    )
    assert printed.split() == ["torch", "torchvision", "torchaudio", "SourceFileLoader"]


def test_a_mismatch_is_seen_without_importing_anything(tmp_path: Path) -> None:
    printed = python(
        """
        import sys
        from cluster.torchvision_cpu import is_mismatched
        print(is_mismatched("torchvision"), is_mismatched("absent"), "torch" in sys.modules)
        """,
        path=build(tmp_path, "None", "+cu130"),
    )
    assert printed == "True False False"


def test_an_interpreter_starts_silently_without_our_packages(tmp_path: Path) -> None:
    """What is left in site-packages after a broken uninstall: the `.pth` alone."""
    line = (ROOT / "cluster" / "densefusion_torchvision.pth").read_text()
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", line + "\nprint('up')"], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.stdout.strip(), done.stderr) == ("up", "")


def test_start_up_imports_nothing_heavy() -> None:
    loaded = python("import sys; print(*sys.modules)").split()
    assert "cluster.torchvision_cpu" in loaded
    assert not {"torch", "re", "typing", "pathlib"} & set(loaded)


def test_the_wheel_holds_the_hook_and_the_data_files(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        capture_output=True,
        text=True,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert "densefusion_torchvision.pth" in inside
    packages = ["schemas", "experts", "fusion", "stages", "pipeline", "cluster", "demo", "benchmarks"]
    tracked = subprocess.run(["git", "ls-files", *packages], cwd=ROOT, capture_output=True, text=True, check=True)
    expected = {name for name in tracked.stdout.split() if (ROOT / name).exists() and not name.endswith(".pth")}
    assert {name for name in expected if not name.endswith(".py")}, "no data files at all"
    assert expected <= inside
