"""RAM++ against the authors' code.

CLOSED is what `generate_tag` of github.com/xinyu1205/recognize-anything@7cb804a8 has as logits for the seeded weights
and pictures of tests/fakes/ram_plus.py; its Swin, BERT and tag-list settings had those sizes. Shims: what transformers
5.19 no longer has (apply_chunking_to_forward, get_head_mask, invert_attention_mask, ...), a tokenizer that only counts,
clip by open_clip.
"""

import datetime
import re

import pytest
import timm
import torch
from safetensors.torch import save_file

from experts.taggers.ram_plus import RamPlusTagger
from experts.taggers.ram_plus_model import LabelEmbeddings, RamPlus, geometry_of, load_ram_plus
from tests.fakes import ram_plus as fake

# fmt: off
CLOSED = torch.tensor([
    [-0.050433263, 0.58084589, 0.28549111, -0.23048775, 0.17349719, 0.017118454, 0.022530064, 0.87205845, -0.021590278,
     0.082852572, -0.19634818, 0.3128556, 0.11920033, 0.16985239, 0.63795292, 0.0010976642, 0.32733053, 0.23968865,
     0.0810927, 0.41751885, 0.40945917, -0.27899617, 0.72708064, 0.15838112],
    [0.89396685, 1.4235375, 1.0569719, 0.61885411, 1.2363635, 0.65680146, 0.64123064, 1.5307183, 0.76280916,
     0.86890376, 0.6754697, 1.1401697, 0.90205866, 1.1075221, 1.2175142, 0.8678441, 0.78900111, 1.274333, 0.86538714,
     1.3238612, 1.0425123, 0.86998653, 1.4206927, 1.0205272],
])
# fmt: on
CLOSE = 1e-5
"""Of logits in float32; 1.7e-6 was seen."""


@pytest.fixture(scope="module")
def weights():
    return fake.official_weights()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return fake.save_ram_plus(tmp_path_factory.mktemp("ram"), lists=False) / "ram_plus_swin_large_14m.pth"


@pytest.fixture(scope="module")
def pixels():
    return torch.stack([RamPlusTagger.transform(picture) for picture in fake.pictures()])


def logits(path, pixels, **settings):
    model = load_ram_plus(path, **settings)
    with torch.inference_mode():
        return model(pixels)


def saved(tmp_path, weights, name="ram.pth"):
    path = tmp_path / name
    torch.save(weights, path)
    return path


def test_logits_are_the_authors(checkpoint, pixels):
    assert (logits(checkpoint, pixels) - CLOSED).abs().max() < CLOSE


def test_a_picture_scores_the_same_in_any_batch(checkpoint, pixels):
    both, alone = logits(checkpoint, pixels), logits(checkpoint, pixels[1:])
    assert (both[1:] - alone).abs().max() < CLOSE


@pytest.mark.parametrize(("dtype", "near"), [(torch.bfloat16, 0.02), (torch.float16, 0.003)])
def test_halves_score_nearly_the_same(checkpoint, pixels, dtype, near):
    found = logits(checkpoint, pixels.to(dtype), dtype=dtype)
    assert found.dtype == torch.float32
    assert (found.sigmoid() - CLOSED.sigmoid()).abs().max() < near


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("dtype", "near"), [(torch.float32, 0.001), (torch.bfloat16, 0.02), (torch.float16, 0.003)], ids=str
)
def test_a_gpu_scores_the_same(checkpoint, pixels, dtype, near):
    found = logits(checkpoint, pixels.to("cuda", dtype), device="cuda", dtype=dtype).cpu()
    assert (found.sigmoid() - CLOSED.sigmoid()).abs().max() < near


def bare(weights):
    return weights


def with_an_older_prefix(weights):
    return {"model": {name.replace("tagging_head", "vision_multi"): value for name, value in weights.items()}}


def with_more_beside(weights):
    more = {
        "logit_scale": torch.ones(()),
        "visual_encoder.layers.0.blocks.1.attn_mask": torch.zeros(64, 144, 144),
        "tagging_head.encoder.layer.0.attention.self.query.weight": torch.zeros(2, 2),
    }
    return {"model": weights | more, "epoch": 5, "config": {"batch_size": 26}}


@pytest.mark.parametrize("form", [bare, with_an_older_prefix, with_more_beside])
def test_forms_of_the_checkpoint_give_the_same_model(tmp_path, weights, pixels, form):
    assert (logits(saved(tmp_path, form(weights)), pixels[:1]) - CLOSED[:1]).abs().max() < CLOSE


def test_safetensors_give_the_same_model(tmp_path, weights, pixels):
    save_file(weights, tmp_path / "ram.safetensors")
    assert (logits(tmp_path / "ram.safetensors", pixels[:1]) - CLOSED[:1]).abs().max() < CLOSE


def test_the_old_file_format_loads_too(tmp_path, weights, pixels):
    torch.save({"model": weights}, tmp_path / "ram.pth", _use_new_zipfile_serialization=False)
    assert (logits(tmp_path / "ram.pth", pixels[:1]) - CLOSED[:1]).abs().max() < CLOSE


def test_labels_of_fewer_descriptions_leave_the_others_as_they_are(checkpoint, weights, pixels):
    rows = weights["label_embed"].view(fake.SMALL.labels, fake.DESCRIPTIONS, -1)[:3].clone()
    counts = torch.tensor([51, 1, 7])
    given = torch.arange(51) < counts[:, None]
    rows[~given] = 0
    found = logits(checkpoint, pixels, labels=LabelEmbeddings(rows, given))
    assert (found[:, 0] - CLOSED[:, 0]).abs().max() < CLOSE
    for label, count in enumerate(counts.tolist()):
        alone = logits(checkpoint, pixels, labels=LabelEmbeddings(rows[label : label + 1, :count]))
        assert (found[:, label] - alone[:, 0]).abs().max() < CLOSE


def test_labels_of_ones_own_need_none_in_the_checkpoint(tmp_path, weights, pixels):
    rows = weights["label_embed"].view(fake.SMALL.labels, fake.DESCRIPTIONS, -1)
    path = saved(tmp_path, {name: value for name, value in weights.items() if name != "label_embed"})
    assert (logits(path, pixels, labels=LabelEmbeddings(rows)) - CLOSED).abs().max() < CLOSE


def test_the_published_checkpoints_geometry_is_read_off_its_shapes():
    """3.0 GB that no test loads: its shapes alone. timm has the same Swin."""
    state = {name: torch.empty(shape, device="meta") for name, shape in fake.shapes(fake.PUBLISHED).items()}
    geometry = geometry_of(state)
    assert (geometry.labels, geometry.hidden, geometry.inner, geometry.layers) == (4585, 768, 3072, 2)
    with torch.device("meta"):
        model = RamPlus(geometry)
        swin = timm.create_model("swin_large_patch4_window12_384", num_classes=0)
    assert {n: v.shape for n, v in model.visual_encoder.state_dict().items()} == {
        n: v.shape for n, v in swin.state_dict().items()
    }
    assert sum(value.numel() for value in model.parameters()) == 329_493_046
    assert sum(value.numel() for value in state.values()) == 329_493_046


def test_no_kind_of_tensor_is_dispensable(tmp_path, weights, monkeypatch):
    last_of_a_kind = {re.sub(r"\d+", "", name): name for name in sorted(weights)}
    for name in last_of_a_kind.values():
        monkeypatch.setattr(torch, "load", lambda *_, gone=name, **__: {k: v for k, v in weights.items() if k != gone})
        with pytest.raises(ValueError, match=f"^1 of the .* missing: {name}$"):
            load_ram_plus(tmp_path / "ram.pth")


def test_many_missing_tensors_are_counted_and_a_few_named(tmp_path, weights):
    path = saved(tmp_path, {name: value for name, value in weights.items() if "crossattention" not in name})
    with pytest.raises(
        ValueError, match=r"^20 of the .* missing: tagging_head\.encoder\.layer\.0\.\S+, .* and 15 more$"
    ):
        load_ram_plus(path)


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("visual_encoder.layers.1.downsample.reduction.weight", (3, 3), "reduction.weight has the shape .* must be"),
        ("tagging_head.encoder.layer.1.crossattention.self.key.weight", (64, 64), r"must be \(64, 512\)"),
        ("label_embed", (4585, 512), "no multiple of 51 descriptions"),
        ("wordvec_proj.weight", (66, 512), "4 heads do not divide"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(tmp_path, weights, name, shape, words):
    with pytest.raises(ValueError, match=words):
        load_ram_plus(saved(tmp_path, weights | {name: torch.zeros(shape)}))


def test_descriptions_of_another_text_model_are_refused(checkpoint):
    with pytest.raises(ValueError, match="embeddings are 768 wide, and the checkpoint takes 512"):
        load_ram_plus(checkpoint, labels=LabelEmbeddings(torch.zeros(2, 3, 768)))


def test_a_file_of_something_else_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds Python objects beside tensors"):
        load_ram_plus(saved(tmp_path, {"model": datetime.date(2024, 1, 1)}))
    with pytest.raises(ValueError, match="holds a list, not a state dict"):
        load_ram_plus(saved(tmp_path, [1]))
    with pytest.raises(ValueError, match=r"missing: visual_encoder\.patch_embed\.proj\.weight"):
        load_ram_plus(saved(tmp_path, {"weight": torch.zeros(2)}))
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=r"page\.pth is no torch file"):
        load_ram_plus(tmp_path / "page.pth")
