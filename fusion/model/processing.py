"""Text and pictures as the fusion model takes them."""

from collections.abc import Sequence
from typing import Any

from transformers import BatchFeature
from transformers.image_utils import make_flat_list_of_images
from transformers.processing_utils import ImagesKwargs, MultiModalData, ProcessingKwargs, ProcessorMixin

from fusion.model.anyres import Size, canvases, token_count
from fusion.model.configuration import FusionConfig
from fusion.model.connectors import connector_of
from fusion.model.image_processing import Fit, FusionImageProcessor


class FusionImagesKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    """boxes: of each picture, x1, y1, x2, y2 from 0 to 1, best first."""

    boxes: list[Any] | None


class FusionProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]
    """Defaults of the processor's parts."""

    images_kwargs: FusionImagesKwargs
    _defaults = {  # noqa: RUF012
        "text_kwargs": {"padding": False, "return_mm_token_type_ids": False, "return_text_replacement_offsets": False}
    }


class FusionProcessor(ProcessorMixin):
    """A tokenizer and a `FusionImageProcessor`; each `<image>` of a text becomes as many as its picture makes tokens.

    Args:
        vision: of the model's configuration, what decides how many tokens a picture makes (`FusionConfig.to_dict`
            without the language model's part).
    """

    valid_processor_kwargs = FusionProcessorKwargs

    def __init__(
        self,
        image_processor: FusionImageProcessor | None = None,
        tokenizer: Any = None,
        vision: dict[str, Any] | None = None,
        image_token: str = "<image>",
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.vision = vision
        self.image_token = image_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        self._config = FusionConfig(**(vision or {}))
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    @classmethod
    def of_model(
        cls, config: FusionConfig, tokenizer: Any, fit: Fit = "pad", chat_template: str | None = None, **image: Any
    ) -> "FusionProcessor":
        """The processor of a model.

        Args:
            fit, image: of its `FusionImageProcessor` (`image_mean`, `image_std`, `max_boxes`).
        """
        connector = connector_of(config.connector)
        images = FusionImageProcessor(
            canvas=connector.canvas(config),
            fit=fit,
            image_grid_pinpoints=config.image_grid_pinpoints,
            takes_boxes=connector.takes_boxes,
            **image,
        )
        vision = {
            name: value
            for name, value in config.to_dict().items()
            if name in ("vision_config", "detail_config", "connector", "connector_options", "image_grid_pinpoints")
        }
        return cls(images, tokenizer, vision, tokenizer.convert_ids_to_tokens(config.image_token_id), chat_template)

    def image_tokens(self, size: Size, boxes: int = 0) -> int:
        """Visual tokens of a picture of that height and width in pixels, with so many boxes on its canvas."""
        return token_count(size, self._config) + boxes

    def canvases(self, size: Size) -> int:
        """Rows of pixel_values of a picture of that height and width in pixels."""
        return canvases(size, self._config)

    def largest_size(self) -> Size:
        """Height and width in pixels of a picture that makes as many visual tokens as any."""
        side = self.image_processor.canvas
        points = self.image_processor.image_grid_pinpoints or [[side, side]]
        return max(((height, width) for height, width in points), key=self.image_tokens)

    def validate_inputs(self, images: Any = None, text: Any = None, **kwargs: Any) -> None:
        """Raises ValueError where the texts have not one image token for each picture."""
        super().validate_inputs(images=images, text=text, **kwargs)
        if text is None:
            return
        texts = [text] if isinstance(text, str) else text
        asked = sum(one.count(self.image_token) for one in texts)
        given = 0 if images is None else len(make_flat_list_of_images(images))
        if asked != given:
            raise ValueError(
                f"the text has {asked} image tokens ({self.image_token}) and there are {given} pictures: "
                "each picture needs one in its place, and each of them a picture"
            )

    def replace_image_token(self, image_inputs: BatchFeature, image_idx: int, **_: Any) -> str:
        height, width = image_inputs["image_sizes"][image_idx].tolist()
        boxes = int(image_inputs["box_counts"][image_idx]) if "box_counts" in image_inputs else 0
        return self.image_token * self.image_tokens((height, width), boxes)

    def _get_num_multimodal_tokens(
        self, image_sizes: Sequence[Sequence[int]] | None = None, **_: Any
    ) -> MultiModalData:
        if image_sizes is None:
            return MultiModalData()
        sizes = [(height, width) for height, width in image_sizes]
        return MultiModalData(
            num_image_tokens=[self.image_tokens(size) for size in sizes],
            num_image_patches=[self.canvases(size) for size in sizes],
        )
