"""The training loop, with a recipe that is done in a second."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from demo.train import __main__ as command
from demo.train import loop, pool
from demo.train.base import Recipe, RecipeSection
from demo.train.loop import MismatchError, batch_rows, train
from demo.train.pool import ScenePool

_WEIGHTS = "model.safetensors"


class BrightnessSection(RecipeSection):
    width: int = 8


class Brightness(Recipe[BrightnessSection]):
    """Learns the mean of a picture; dropout, a norm and noise make every source of chance and state matter."""

    name = "brightness"
    section = BrightnessSection
    about = "It says how bright a picture is."
    library = "torch"
    task = "image-feature-extraction"

    def build(self) -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Linear(12, self.config.width),
            torch.nn.BatchNorm1d(self.config.width),
            torch.nn.Dropout(0.1),
            torch.nn.Linear(self.config.width, 1),
        )

    def loss(
        self, model: torch.nn.Module, pool: ScenePool, rows: np.ndarray, rng: np.random.Generator, progress: float
    ) -> tuple[torch.Tensor, dict[str, float]]:
        pixels, mean = _pixels(pool, rows)
        noise = torch.from_numpy(rng.standard_normal(pixels.shape, np.float32))
        loss = (model(pixels + 0.01 * noise)[:, 0] - mean).square().mean()
        return loss, {"progress": progress}

    def evaluate(self, model: torch.nn.Module, pool: ScenePool) -> dict[str, float]:
        assert not model.training and not torch.is_grad_enabled()
        pixels, mean = _pixels(pool, np.arange(len(pool)))
        return {"error": np.float64((model(pixels)[:, 0] - mean).abs().mean())}  # as recipes that count in numpy

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        save_file(model.state_dict(), folder / _WEIGHTS)


def _pixels(pool: ScenePool, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.from_numpy(pool.images[rows]).float() / 255
    return images[:, 48::96, 48::96].flatten(1), images.mean(dim=(1, 2, 3))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Small chunks while the tests run, so that no more is rendered than is looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "CHUNK", 8)
        yield tmp_path_factory.mktemp("scenes")


@pytest.fixture
def run(cache: Path) -> Callable[..., dict[str, float]]:
    def run(out: Path, **settings: float) -> dict[str, float]:
        values = {"steps": 40, "batch_size": 6, "learning_rate": 0.02, "warmup_steps": 4, "scenes": 16}
        values |= {"validation_scenes": 8, "evaluate_every": 15, "checkpoint_every": 7, "log_every": 4, "ema": 0.9}
        recipe = Brightness(BrightnessSection(**{**values, **settings}))
        return train(recipe, out, command="python -m demo.train brightness", device="cpu", cache=cache)

    return run


def _curve(out: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("images_per_second", "cpu_seconds")} for line in lines]


def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    run: Callable[..., dict[str, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = run(tmp_path / "unbroken")
    broken = tmp_path / "broken"
    step = loop._Run.step
    for stop in (5, 18, 30):  # before the first checkpoint, and between a line of the curve and a checkpoint

        def stopped(self: loop._Run, stop: int = stop) -> None:
            if self.progress.step == stop:
                raise KeyboardInterrupt
            step(self)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(loop._Run, "step", stopped)
            run(broken)
    assert run(broken) == unbroken
    ours, theirs = (load_file(tmp_path / out / "weights" / _WEIGHTS) for out in ("broken", "unbroken"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert _curve(broken) == _curve(tmp_path / "unbroken")


def test_it_learns_and_says_how(run: Callable[..., dict[str, float]], tmp_path: Path) -> None:
    figures = run(tmp_path)
    curve = _curve(tmp_path)
    assert [line["step"] for line in curve] == [4, 8, 12, 15, 16, 20, 24, 28, 30, 32, 36, 40]
    assert curve[-1]["loss"] < curve[0]["loss"] / 3
    assert [line["step"] for line in curve if "error" in line] == [15, 30, 40]
    card = (tmp_path / "weights" / "README.md").read_text()
    assert card.startswith("---\n")
    for fact in ("python -m demo.train brightness", pool.data_version(), f"| error | {figures['error']:.3f} |"):
        assert fact in card


def test_a_checkpoint_of_another_run_is_refused(run: Callable[..., dict[str, float]], tmp_path: Path) -> None:
    run(tmp_path, steps=7)
    run(tmp_path, steps=7, log_every=1)  # how often it is told decides nothing
    with pytest.raises(MismatchError, match=r"steps was 7 and is now 8.*--out"):
        run(tmp_path, steps=8)


def test_batches_pass_over_all_rows() -> None:
    drawn = np.concatenate([batch_rows(0, step, 6, 16) for step in range(8)])
    assert [sorted(part) for part in drawn.reshape(3, 16).tolist()] == [list(range(16))] * 3
    assert (drawn[:16] != drawn[16:32]).any()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--set", "stepz=3"], "stepz: Extra inputs are not permitted"),
        (["--set", "steps"], "--set takes KEY=VALUE, not steps"),
        (["--config", "missing.yaml"], "missing.yaml"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["tagger", *arguments]) == 2
    told = capsys.readouterr().err
    assert reason in told
    assert told.count("\n") == 1
