"""The score experts over models of random weights, against the libraries without our code."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn
from torchvision import transforms

from experts.aesthetic import Aesthetic, AestheticSection
from experts.nsfw import Nsfw, NsfwSection
from experts.score import ScoreExpert
from experts.scorers.linear_head import linear_head
from experts.watermark import Watermark, WatermarkSection
from schemas.errors import RequestError, SetupError
from tests.fakes.score_models import SIDE, WIDTH, classifier, head, saved, tower
from tests.photographs import photograph

EXPERTS = {"aesthetic": Aesthetic, "nsfw": Nsfw, "watermark": Watermark}
PICTURES = ["astronaut", "coffee", "page"]


@pytest.fixture
def opened():
    """`opened(name, **settings)`: an expert with its model loaded."""
    experts: list[ScoreExpert] = []

    def build(name, **settings):
        settings = {key: str(value) if key in ("model", "weights") else value for key, value in settings.items()}
        expert = EXPERTS[name](EXPERTS[name].section(**settings))
        expert.models()
        expert.open("cpu")
        experts.append(expert)
        return expert

    yield build
    for expert in experts:
        expert.close()


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    return tower(tmp_path_factory.mktemp("tower"))


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return classifier(tmp_path_factory.mktemp("vit"), ["normal", "NSFW", "drawing"])


def photographs():
    return [photograph(name) for name in PICTURES]


def scores(expert, images):
    return [prior["score"] for prior in expert.measure(images)]


def unit_embeddings(folder, images):
    """By open_clip alone."""
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    with torch.inference_mode():
        found = model.eval().encode_image(torch.stack([transform(image) for image in images]))
    return found / found.norm(dim=-1, keepdim=True)


def linear_mse():
    """The modules of LAION's improved aesthetic predictor, at our width: dropouts, and no activation."""
    sizes = [nn.Linear(WIDTH, 32), nn.Dropout(0.2), nn.Linear(32, 16), nn.Dropout(0.2), nn.Linear(16, 8)]
    return head(*sizes, nn.Dropout(0.1), nn.Linear(8, 4), nn.Linear(4, 1))


def relu_mse():
    """Those of its other version."""
    first = [nn.Linear(WIDTH, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 16), nn.ReLU(), nn.Dropout(0.1)]
    return head(*first, nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1), seed=1)


def h14():
    """Those of LAION's NSFW detector for torch."""
    first = [nn.Linear(WIDTH, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 16), nn.ReLU(), nn.Dropout(0.2)]
    return head(*first, nn.Linear(16, 8), nn.Linear(8, 1), seed=2)


@pytest.mark.parametrize("make", [linear_mse, relu_mse, h14])
def test_a_heads_geometry_and_activations_are_read_off_its_file(opened, towers, tmp_path, make):
    module = make()
    expert = opened("aesthetic", model=towers, weights=saved(tmp_path / "head.pth", module))
    with torch.inference_mode():
        expected = module(unit_embeddings(towers, photographs()))[:, 0]
    found = scores(expert, photographs())
    assert found == pytest.approx(expected.tolist(), abs=1e-5)
    assert np.ptp(found) > 1e-3


def test_a_bare_linear_layer_is_a_head(opened, towers, tmp_path):
    module = head(nn.Linear(WIDTH, 1))
    torch.save(module[0].state_dict(), tmp_path / "bare.pth")
    save_file(module[0].state_dict(), tmp_path / "bare.safetensors")
    torch.save({"state_dict": module[0].state_dict(), "epoch": 3}, tmp_path / "wrapped.pt")
    with torch.inference_mode():
        expected = module(unit_embeddings(towers, photographs()))[:, 0].tolist()
    for name in ("bare.pth", "bare.safetensors", "wrapped.pt"):
        expert = opened("aesthetic", model=towers, weights=tmp_path / name)
        assert scores(expert, photographs()) == pytest.approx(expected, abs=1e-5)


def test_an_activation_can_be_said(opened, towers, tmp_path):
    module = head(nn.Linear(WIDTH, 16), nn.ReLU(), nn.Linear(16, 1))
    file = saved(tmp_path / "head.pth", module)
    with torch.inference_mode():
        expected = module(unit_embeddings(towers, photographs()))[:, 0].tolist()
    settings = {"model": towers, "weights": file}
    assert scores(opened("aesthetic", activation="relu", **settings), photographs()) == pytest.approx(
        expected, abs=1e-5
    )
    assert scores(opened("aesthetic", **settings), photographs()) != pytest.approx(expected, abs=1e-3)


def test_probabilities_are_cut_or_come_from_logits(opened, towers, tmp_path):
    module = head(nn.Linear(WIDTH, 1), seed=4)
    with torch.no_grad():
        module[0].bias.fill_(-3.0)
    settings = {"family": "clip_head", "model": towers, "weights": saved(tmp_path / "head.pth", module)}
    with torch.inference_mode():
        plain = module(unit_embeddings(towers, photographs()))[:, 0]
    assert plain.max() < 0
    assert scores(opened("nsfw", **settings), photographs()) == [0.0] * 3
    logits = scores(opened("nsfw", output="sigmoid", **settings), photographs())
    assert logits == pytest.approx(plain.sigmoid().tolist(), abs=1e-5)
    assert scores(opened("aesthetic", **settings), photographs()) == pytest.approx(plain.tolist(), abs=1e-5)


def test_a_classifiers_score_is_that_of_the_librarys_pipeline(opened, vit):
    from transformers import pipeline

    library = pipeline("image-classification", model=str(vit), device="cpu")
    said = [{one["label"]: one["score"] for one in library(image, top_k=3)} for image in photographs()]
    for name, settings, label in (
        ("nsfw", {}, "NSFW"),
        ("nsfw", {"label": "nsfw"}, "NSFW"),
        ("watermark", {"family": "transformers", "label": 2}, "drawing"),
        ("aesthetic", {"family": "transformers", "label": "Normal"}, "normal"),
    ):
        found = scores(opened(name, model=vit, **settings), photographs())
        assert found == pytest.approx([one[label] for one in said], abs=1e-5)
    assert np.ptp(found) > 1e-3


@pytest.mark.parametrize(
    ("labels", "problem"), [(["watermark"], None), (["clear", "watermark"], "multi_label_classification")]
)
def test_sigmoids_are_the_pipelines_too(opened, tmp_path, labels, problem):
    from transformers import pipeline

    folder = classifier(tmp_path / "model", labels, problem_type=problem)
    library = pipeline("image-classification", model=str(folder), device="cpu")
    said = [{one["label"]: one["score"] for one in library(image, top_k=2)} for image in photographs()]
    found = scores(opened("watermark", model=folder), photographs())
    assert found == pytest.approx([one["watermark"] for one in said], abs=1e-5)


def test_a_regression_is_as_it_is(opened, tmp_path):
    folder = classifier(tmp_path / "model", ["rating"], problem_type="regression")
    found = scores(opened("aesthetic", family="transformers", model=folder), photographs())
    assert len(set(found)) == 3
    assert not all(0 <= score <= 1 for score in found)


class WatermarkNet(nn.Module):
    """As LAION's detector is put together: a timm net whose classifier is three linear layers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.net = timm.create_model("test_efficientnet", num_classes=2)
        width = self.net.classifier.in_features
        layers = [nn.Linear(width, 20), nn.ReLU(), nn.Dropout(0.3), nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 2)]
        self.net.classifier = head(*layers, seed=5)
        self.eval()

    def score(self, images):
        form = [transforms.Resize((48, 48)), transforms.ToTensor()]
        form.append(transforms.Normalize(self.net.default_cfg["mean"], self.net.default_cfg["std"]))
        with torch.inference_mode():
            logits = self.net(torch.stack([transforms.Compose(form)(image) for image in images]))
        return logits.softmax(1)[:, 0].tolist()


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_timm_net_with_a_classifier_of_its_own(opened, tmp_path, wrapped):
    net = WatermarkNet()
    state = net.net.state_dict()
    torch.save({"weights": state} if wrapped else state, tmp_path / "model.pt")
    settings = {"family": "timm", "model": "test_efficientnet", "weights": tmp_path / "model.pt"}
    found = scores(opened("watermark", label=0, side=48, **settings), photographs())
    assert found == pytest.approx(net.score(photographs()), abs=1e-5)
    assert np.ptp(found) > 1e-4
    others = scores(opened("watermark", label=1, side=48, **settings), photographs())
    assert np.add(found, others) == pytest.approx(1.0, abs=1e-5)
    assert scores(opened("watermark", label=0, **settings), photographs()) != pytest.approx(found, abs=1e-5)


def test_a_batch_says_what_each_picture_says_alone_and_a_strip_is_no_harm(opened, towers, vit, tmp_path):
    images = [*photographs(), Image.new("RGB", (9000, 3), "red")]
    weights = saved(tmp_path / "head.pth", linear_mse())
    for expert in (opened("aesthetic", model=towers, weights=weights), opened("nsfw", model=vit)):
        alone = [scores(expert, [image])[0] for image in images]
        assert scores(expert, images) == pytest.approx(alone, abs=1e-5)
        assert expert.least() == (SIDE, SIDE)
        prepared = [expert.prepare(image) for image in images]
        assert {expert.bucket(one) for one in prepared} == {(3, SIDE, SIDE)}
        assert [one.size for one in prepared] == [image.size for image in images]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_says_about_the_same(opened, towers, vit, tmp_path, precision):
    net = WatermarkNet()
    torch.save(net.net.state_dict(), tmp_path / "model.pt")
    timm_net = {"family": "timm", "model": "test_efficientnet", "weights": tmp_path / "model.pt", "label": 0}
    clip = {"model": towers, "weights": saved(tmp_path / "head.pth", linear_mse())}
    for name, settings in (("aesthetic", clip), ("nsfw", {"model": vit}), ("watermark", timm_net)):
        full = scores(opened(name, **settings), photographs())
        half = scores(opened(name, precision=precision, **settings), photographs())
        assert half == pytest.approx(full, abs=0.05)


def test_scores_that_are_not_finite_are_an_error(opened, towers, tmp_path):
    module = head(nn.Linear(WIDTH, 1))
    with torch.no_grad():
        module[0].bias.fill_(float("nan"))
    expert = opened("aesthetic", model=towers, weights=saved(tmp_path / "head.pth", module))
    with pytest.raises(FloatingPointError, match="aesthetic model gave values that are not finite"):
        scores(expert, photographs()[:1])


def test_a_missing_head_is_found_before_anything_starts(towers):
    expert = Aesthetic(AestheticSection(model=str(towers), weights="heads/none.pth"))
    with pytest.raises(RequestError, match=r"perceive\.aesthetic\.weights: there is no file heads/none\.pth"):
        expert.models()
    with pytest.raises(RequestError, match="/nowhere/at/all does not exist"):
        Nsfw(NsfwSection(model="/nowhere/at/all")).models()


def test_a_head_of_another_towers_width_is_told(opened, towers, tmp_path):
    with pytest.raises(SetupError, match=rf"takes embeddings of 768 numbers, and {towers} gives {WIDTH}.*model to the"):
        opened("aesthetic", model=towers, weights=saved(tmp_path / "head.pth", head(nn.Linear(768, 1))))


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (head(nn.Linear(WIDTH, 2)), "gives 2 numbers"),
        (
            head(nn.Linear(WIDTH, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)),
            "running_mean is no weight or bias of a linear",
        ),
        (head(nn.Linear(WIDTH, 8), nn.LayerNorm(8), nn.Linear(8, 1)), "layer 1 is not linear"),
        (head(nn.Linear(WIDTH, 8), nn.Linear(9, 1)), "layer 1 takes 9 numbers, and the one before it gives 8"),
    ],
)
def test_what_is_no_head_is_told(opened, towers, tmp_path, module, words):
    with pytest.raises(SetupError, match=rf"perceive\.aesthetic\.weights: .*{words}"):
        opened("aesthetic", model=towers, weights=saved(tmp_path / "head.pth", module))


def test_a_file_that_would_run_code_is_refused(opened, towers, tmp_path):
    torch.save(linear_mse(), tmp_path / "module.pth")  # a pickled class, not a state dict
    with pytest.raises(SetupError, match=r"perceive\.aesthetic\.weights: .*UnpicklingError"):
        opened("aesthetic", model=towers, weights=tmp_path / "module.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(SetupError, match="holds no state dict, but a list"):
        opened("aesthetic", model=towers, weights=tmp_path / "list.pth")


@pytest.mark.parametrize(
    ("label", "words"), [("unsafe", "no class unsafe"), (3, "no class 3"), (None, "no class watermark")]
)
def test_a_label_that_the_model_does_not_have_is_told_with_those_it_has(opened, vit, label, words):
    with pytest.raises(
        SetupError, match=rf"perceive\.watermark\.label: .*{words}; it has 0: normal, 1: NSFW, 2: drawing"
    ):
        opened("watermark", model=vit, label=label)


def test_a_timm_file_of_another_architecture_is_told(opened, tmp_path):
    file = saved(tmp_path / "model.pt", timm.create_model("test_vit", num_classes=2), before="")
    settings = {"family": "timm", "weights": file, "label": 0}
    with pytest.raises(SetupError, match=r"perceive\.watermark\.weights: .*does not fill a test_efficientnet"):
        opened("watermark", model="test_efficientnet", **settings)
    with pytest.raises(SetupError, match=r"perceive\.watermark\.model: timm makes no no_such_net"):
        opened("watermark", model="no_such_net", **settings)
    assert 0 <= scores(opened("watermark", model="test_vit", **settings), photographs()[:1])[0] <= 1
    with pytest.raises(SetupError, match=r"no class watermark; it has 0: class 0, 1: class 1"):
        opened("watermark", model="test_vit", family="timm", weights=file)


@pytest.mark.parametrize(
    ("section", "settings", "words"),
    [
        (AestheticSection, {"label": "nsfw"}, "label is for family transformers and timm only"),
        (AestheticSection, {"family": "transformers"}, "family transformers needs model of its own"),
        (AestheticSection, {"family": "timm", "model": "test_vit"}, "family timm needs weights of its own"),
        (NsfwSection, {"family": "clip_head", "model": "a/b"}, "family clip_head needs weights of its own"),
        (WatermarkSection, {"side": 256}, "side is for family timm only"),
        (WatermarkSection, {"weights": "x.pth"}, "weights is for family clip_head and timm only"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(section, settings, words):
    with pytest.raises(ValidationError, match=words):
        section(**settings)


def test_the_defaults_are_the_public_models(monkeypatch):
    assert Aesthetic(AestheticSection()).models() == {
        "model": "open_clip:ViT-L-14-quickgelu@openai",
        "weights": "trl-lib/ddpo-aesthetic-predictor/aesthetic-model.pth@main",
    }
    assert Nsfw(NsfwSection()).models() == {"model": "Falconsai/nsfw_image_detection@main"}
    watermark = Watermark(WatermarkSection(revision="abc"))
    assert watermark.models() == {"model": "amrul-hzz/watermark_detector@abc"}
    assert watermark._scorer.class_number(["LABEL_0", "LABEL_1"]) == 1
    for expert in EXPERTS.values():
        assert expert.rows_from == "dedup" and not expert.on


def test_a_head_of_the_hub_is_of_the_revision_asked_for(opened, towers, tmp_path, monkeypatch):
    file, asked = saved(tmp_path / "head.pth", linear_mse()), {}

    def download(repo, name, revision):
        asked.update(repo=repo, name=name, revision=revision)
        return str(file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    expert = opened("aesthetic", model=towers, weights="org/heads/v2/head.pth", weights_revision="abc")
    assert expert.models()["weights"] == "org/heads/v2/head.pth@abc"
    assert len(scores(expert, photographs())) == 3
    assert asked == {"repo": "org/heads", "name": "v2/head.pth", "revision": "abc"}


def test_weights_are_the_identity_and_not_their_place(towers, tmp_path):
    one, same, other = (saved(tmp_path / name, linear_mse()) for name in ("one.pth", "same.pth", "other.pth"))
    same.write_bytes(one.read_bytes())
    saved(other, relu_mse())
    found = [Aesthetic(AestheticSection(model=str(towers), weights=str(f))).models() for f in (one, same, other)]
    assert found[0] == found[1] != found[2]


def test_layers_count_in_the_order_of_their_numbers():
    module = head(*(nn.Linear(4, 4) for _ in range(12)))
    weights = dict(sorted(module.state_dict().items()))  # 0, 1, 10, 11, 2, ...
    vectors = torch.randn(5, 4)
    with torch.inference_mode():
        assert torch.allclose(linear_head(weights).layers(vectors), module(vectors), atol=1e-6)
    with pytest.raises(ValueError, match="2 stacks of layers"):
        linear_head({f"{name}.{key}": v for name in ("a", "b") for key, v in module.state_dict().items()})


@pytest.mark.gpu
def test_a_gpu_says_what_the_cpu_says(towers, vit, tmp_path):
    net = WatermarkNet()
    torch.save(net.net.state_dict(), tmp_path / "model.pt")
    timm_net = {"family": "timm", "model": "test_efficientnet", "weights": str(tmp_path / "model.pt"), "label": 0}
    clip = {"model": str(towers), "weights": str(saved(tmp_path / "head.pth", linear_mse()))}
    for name, settings in (("aesthetic", clip), ("nsfw", {"model": str(vit)}), ("watermark", timm_net)):
        found = []
        for device in ("cpu", "cuda"):
            expert = EXPERTS[name](EXPERTS[name].section(**settings))
            expert.open(device)
            found.append(scores(expert, photographs()))
            expert.close()
        assert found[0] == pytest.approx(found[1], abs=1e-3)
