"""Builds the report: figures and samples in, one self-contained HTML file out.

The page loads nothing and runs no script; a content security policy says so to the browser. Everything that comes from
the web (texts, labels, URLs) is escaped by the template engine and shown as text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fusion.box_choice import BoxChoiceSection, same_object
from fusion.priors import Box
from pipeline.report.captioning import captioning
from pipeline.report.curation import Curation
from pipeline.report.overlays import Shape, shapes
from pipeline.report.page import render
from pipeline.report.pictures import disparity_uri, thumbnail_uri
from schemas.summary import RunSummary
from stages.caption_figures import caption_table
from stages.caption_findings import findings_table

_MERGED = BoxChoiceSection()
_DRAWN = 20  # shapes of one expert that are drawn over an image; more hide it, and all are listed


@dataclass(frozen=True)
class ReportSample:
    """One sample of the gallery.

    Attributes:
        uid: of the row.
        url: where the image is from.
        image: original bytes.
        width, height: of the image frame, pixels.
        priors: rows of the experts' tables by expert name (`perceive.` left out), with or without the uid.
        caption: the fused caption.
        alt_text: the page's own text, or None.
        findings: what the checks say: dicts of `kind` and `detail`.
        repaired: whether the caption is the second answer.
        scores: that experts measured before the selection, by expert.
    """

    uid: str
    url: str
    image: bytes
    width: int
    height: int
    priors: dict[str, dict[str, Any]]
    caption: str
    alt_text: str | None = None
    findings: Sequence[dict[str, str]] = field(default_factory=list)
    repaired: bool = False
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Layer:
    """One expert's shapes over one image; `number` is the expert's place, and so its colour and switch."""

    number: int
    expert: str
    shapes: list[Shape]

    @property
    def drawn(self) -> list[Shape]:
        return self.shapes[:_DRAWN]


def render_report(
    summary: RunSummary,
    samples: Sequence[ReportSample],
    curation: Curation | None = None,
    faulty: Sequence[ReportSample] = (),
) -> str:
    """The page as HTML; the same run gives the same text.

    Args:
        faulty: samples with findings that are shown beside those that stand for the dataset.
    """
    located = {"boxes", "regions", "phrases", "lines"}
    locating = sorted({e for s in [*samples, *faulty] for e, prior in s.priors.items() if located & set(prior)})
    return render(
        "report.html.j2",
        run=summary,
        experts=locating,
        samples=[_view(sample, locating) for sample in samples],
        faulty=[_view(sample, locating) for sample in faulty],
        captions=caption_table(summary),
        captioning=captioning(summary),
        findings=findings_table(summary),
        curation=curation,
    )


def _view(sample: ReportSample, locating: list[str]) -> dict[str, Any]:
    priors = sample.priors
    depth = next((p["disparity_png"] for p in priors.values() if p.get("disparity_png")), None)
    return {
        "row": sample,
        "picture": thumbnail_uri(sample.image),
        "depth": disparity_uri(depth) if depth else None,
        "layers": [_Layer(n, e, shapes(priors[e])) for n, e in enumerate(locating) if e in priors],
        "tags": [tag for p in priors.values() for tag in p.get("tags") or []],
        "texts": {e: [line["text"] for line in p["lines"]] for e, p in priors.items() if p.get("lines")},
        "captions": {e: p["caption"] for e, p in priors.items() if p.get("caption")},
        "nearest_first": _nearest_first(priors),
        "values": {e: values for e, p in priors.items() if (values := _values(p))} | _scores(sample),
        "errors": {e: p["error"] for e, p in priors.items() if p.get("error")},
    }


def _nearest_first(priors: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """(label, band) of every box whose depth is known; what two detectors boxed alike is one."""
    boxes = {(e, box["anchor"]): box for e, p in priors.items() for box in p.get("boxes") or []}
    depths = [depth for p in priors.values() for depth in p.get("objects") or []]
    told: list[tuple[Box, str]] = []
    for depth in depths:
        box = boxes.get((depth["expert"], depth["anchor"]))
        if box is not None and not any(same_object(box, other, _MERGED) for other, _ in told):
            told.append((box, depth["band"]))
    return [(box["label"], band) for box, band in told]


def _values(prior: dict[str, Any]) -> dict[str, str]:
    """What an expert of one's own says in plain values; the columns of the built-in ones have places of their own."""
    if prior.get("error") or {"tags", "boxes", "lines", "disparity_png"} & set(prior):
        return {}
    plain = {k: v for k, v in prior.items() if k not in ("uid", "error") and isinstance(v, bool | int | float | str)}
    return {name: f"{v:.4g}" if isinstance(v, float) else str(v) for name, v in plain.items()}


def _scores(sample: ReportSample) -> dict[str, dict[str, str]]:
    return {name: {"score": f"{score:.4g}"} for name, score in sample.scores.items()}
