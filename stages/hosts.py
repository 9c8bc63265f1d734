"""Host names of URLs, by column."""

import pyarrow as pa
import pyarrow.compute as pc

# scheme, user, host: the last @ before the path ends the user, as in urllib.parse
_HOST = r"^[^:/?#]+://(?:[^/?#]*@)?(?P<host>\[[^\]]*\]|[^/?#:]*)"


def hosts(urls: pa.ChunkedArray) -> pa.ChunkedArray:
    """The host of each URL in lower case, without port and without the dot of a full name; null where it has none."""
    host = pc.struct_field(pc.extract_regex(urls, _HOST), "host")
    host = pc.utf8_rtrim(pc.utf8_lower(host), ".")
    return pc.if_else(pc.equal(host, ""), pa.scalar(None, pa.string()), host)
