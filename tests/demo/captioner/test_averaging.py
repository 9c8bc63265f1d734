from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from demo.captioner.__main__ import main
from demo.captioner.averaging import average


def model(folder: Path, **weights: torch.Tensor) -> Path:
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(f'"{folder.name}"', encoding="utf-8")
    return folder


def test_weights_lie_between_and_the_rest_is_the_seconds(tmp_path: Path) -> None:
    first = model(tmp_path / "first", a=torch.zeros(2, 2), b=torch.ones(3))
    second = model(tmp_path / "second", a=torch.full((2, 2), 4.0), b=torch.ones(3))
    main(["average", str(first), str(second), "--share", "0.25", "--out", str(tmp_path / "out")])
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(found["a"], torch.ones(2, 2))
    assert torch.equal(found["b"], torch.ones(3))
    assert (tmp_path / "out" / "config.json").read_text(encoding="utf-8") == '"second"'


def test_models_of_different_shapes_are_refused(tmp_path: Path) -> None:
    first, second = model(tmp_path / "first", a=torch.zeros(2)), model(tmp_path / "second", a=torch.zeros(3))
    with pytest.raises(ValueError, match="different shapes"):
        average(first, second, 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()
