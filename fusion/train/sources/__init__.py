"""Where training rows come from, one format a class."""

from fusion.train.section import DenseFusionSource, LLaVASource, RowsSource, SourceSection, WebDatasetSource
from fusion.train.sources.base import Source
from fusion.train.sources.captions import DenseFusionCaptions, PriorRows
from fusion.train.sources.llava import LLaVAConversations
from fusion.train.sources.webdataset import PackagedCaptions


def source_of(section: SourceSection) -> Source:
    """Raises RequestError for files that are missing or of another format."""
    match section:
        case LLaVASource():
            return LLaVAConversations(section)
        case DenseFusionSource():
            return DenseFusionCaptions(section)
        case WebDatasetSource():
            return PackagedCaptions(section)
        case RowsSource():
            return PriorRows(section)
