"""The embed stage against the bare loop of its model, on 2-megapixel JPEGs and a ViT-B/32."""

from benchmarks import embed
from benchmarks.curation.figure import Figure

_AGAINST = "open_clip's model over pictures prepared before"


def measure(quick: bool) -> list[Figure]:
    """Run `benchmarks.embed`; the quick form works on fewer images once."""
    answer = embed.measure(None, *((32, 1) if quick else (192, 3)))
    (comparison,) = answer["comparisons"]
    busy = f"wall time with a core free beside the model's; load average here {answer['machine']['load_average']:.1f}"
    scaled, whole = answer["steps_alone_scaled"], answer["steps_alone_whole"]
    model = answer["model"]
    return [
        Figure("embed stage, wall time", comparison["median_ratio"], 0.95, unit="x", against=_AGAINST, note=busy),
        Figure(
            "embed stage, CPU time of the model's own thread",
            answer["model_thread"]["ratio"],
            0.95,
            unit="x",
            against=_AGAINST,
        ),
        Figure("embed stage, CPU time of all threads", comparison["median_cpu_ratio"], unit="x", against=_AGAINST),
        Figure("share of CPU time that decoding takes, decoded at scale", scaled["decode_share"]),
        Figure("the same, decoded whole", whole["decode_share"]),
        Figure("share of CPU time that resizing takes, decoded at scale", scaled["prepare_share"]),
        Figure("the same, decoded whole", whole["prepare_share"]),
        Figure(
            "least cosine of a vector to that of the picture decoded whole",
            answer["scaled_against_whole"]["least_cosine"],
        ),
        Figure(f"ViT-B/32, {answer['setting']['precision']}: share of the GEMM rate", model["share_of_gemm"]),
    ]
