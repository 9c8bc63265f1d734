"""What sites state: robots.txt and header reservations."""

import re
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ledger import Reason
from stages.download import DownloadSection
from stages.fetch.errors import FetchRefused
from stages.fetch.optout import OptOut
from stages.fetch.robots import Rules


@pytest.mark.parametrize(
    ("text", "path", "allowed"),
    [
        ("", "/x.jpg", True),
        ("User-agent: *\nDisallow:", "/x.jpg", True),
        ("User-agent: *\nDisallow: /", "/x.jpg", False),
        ("User-agent: *\n\nDisallow: /", "/x.jpg", False),
        ("User-agent: otherbot\nDisallow: /", "/x.jpg", True),
        ("User-agent: *\nDisallow: /\n\nUser-agent: densefusion\nDisallow: /private", "/x.jpg", True),
        ("User-agent: DenseFusion\nDisallow: /a\nUser-agent: densefusion\nDisallow: /b", "/b", False),
        ("User-agent: *\nAllow: /\nDisallow: /img", "/img/x.jpg", False),
        ("User-agent: *\nDisallow: /img\nAllow: /img/free", "/img/free/x.jpg", True),
        ("User-agent: *\nDisallow: /*.jpg$", "/a/x.jpg", False),
        ("User-agent: *\nDisallow: /*.jpg$", "/a/x.jpg?v=1", True),
        ("User-agent: *\nDisallow: /*/full/*.png", "/a/full/b.png", False),
        ("User-agent: *\nDisallow: /x$", "/xy", True),
        ("User-agent: *\nDisallow: /search?q=", "/search?q=cat", False),
        ("User-agent: *\nDisallow: /caf%C3%A9", "/caf%C3%A9/1.jpg", False),
        ("<!DOCTYPE html><html>Not found</html>", "/x.jpg", True),
    ],
)
def test_robots(text, path, allowed):
    assert Rules(text).can_fetch("densefusion", f"http://a.test{path}") is allowed


@given(st.lists(st.sampled_from(["a", "b", "*", "/"]), min_size=1), st.text("ab/", max_size=12), st.booleans())
def test_wildcards_match_as_the_regular_expression_would(pattern, path, whole):
    rule = "/x" + "".join(pattern)
    expected = re.match(re.escape(rule).replace(r"\*", ".*") + ("$" if whole else ""), f"/x{path}") is not None
    text = f"User-agent: *\nDisallow: {rule}{'$' if whole else ''}"
    assert Rules(text).can_fetch("densefusion", f"http://a.test/x{path}") is not expected


@pytest.mark.parametrize(
    ("header", "value", "opted_out"),
    [
        ("X-Robots-Tag", "noai", True),
        ("X-Robots-Tag", "all, NoImageAI", True),
        ("X-Robots-Tag", "nofollow", False),
        ("X-Robots-Tag", "otherbot: noai", False),
        ("X-Robots-Tag", "densefusion: noai", True),
        ("X-Robots-Tag", "otherbot: nofollow, noai, densefusion: noindex", True),
        ("X-Robots-Tag", "unavailable_after: 25 Jun 2030 15:00:00 PST, noindex", True),
        ("TDM-Reservation", "1", True),
        ("TDM-Reservation", "0", False),
    ],
)
def test_header_reservations(header, value, opted_out):
    headers = Message()
    headers["X-Robots-Tag"] = "nofollow"
    headers[header] = value
    rules = OptOut(DownloadSection().opt_out_headers, "densefusion")
    if not opted_out:
        rules.check(headers)
        return
    with pytest.raises(FetchRefused) as refused:
        rules.check(headers)
    assert refused.value.reason is Reason.OPTED_OUT
