"""URLs taken apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ledger import Reason
from stages.fetch.errors import FetchRefused
from stages.fetch.target import Target, parse_target, redirected


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://A.test/x.jpg#frag", Target("http", "a.test", 80, "/x.jpg")),
        ("https://a.test", Target("https", "a.test", 443, "/")),
        ("http://a.test.:8080/?q=1 2", Target("http", "a.test", 8080, "/?q=1%202")),
        ("http://a.test/%20é.jpg", Target("http", "a.test", 80, "/%20%C3%A9.jpg")),
        ("http://bücher.test/", Target("http", "xn--bcher-kva.test", 80, "/")),
        ("http://[::1]:81/x", Target("http", "::1", 81, "/x")),
    ],
)
def test_parts(url, target):
    assert parse_target(url) == target


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", Reason.REFUSED_SCHEME),
        ("ftp://a.test/x", Reason.REFUSED_SCHEME),
        ("a.test/x", Reason.REFUSED_SCHEME),
        ("http://user:secret@a.test/", Reason.BAD_URL),
        ("http://a.test:port/", Reason.BAD_URL),
        ("http:///x", Reason.BAD_URL),
        ("http://[fe80::1%25eth0]/", Reason.BAD_URL),
        ("http://a b.test/", Reason.BAD_URL),
        (f"http://{'a' * 64}.test/", Reason.BAD_URL),
    ],
)
def test_refused(url, reason):
    with pytest.raises(FetchRefused) as refused:
        parse_target(url)
    assert refused.value.reason is reason


@given(st.text(max_size=40), st.text(max_size=40))
def test_what_passes_fits_a_request_line(host, rest):
    for url in (f"http://{host}/{rest}", f"http://a.test/{rest}"):
        try:
            target = parse_target(url)
        except FetchRefused:
            continue
        line = f"GET {target.selector} {target.authority}"
        assert line.isascii() and line.isprintable() and line.count(" ") == 2
        assert parse_target(target.url) == target


def test_redirects_are_relative_and_keep_the_servers_bytes():
    start = parse_target("https://a.test/dir/x?q")
    assert redirected(start, "../y").url == "https://a.test/y"
    assert redirected(start, "//b.test/z").url == "https://b.test/z"
    assert redirected(start, "/é".encode().decode("latin-1")).selector == "/%C3%A9"


@given(st.sampled_from(Reason), st.text())
def test_a_refusal_survives_its_text(reason, detail):
    refused = FetchRefused(reason, detail)
    again = FetchRefused.parse(str(refused))
    assert (again.reason, again.detail) == (refused.reason, refused.detail)


def test_any_other_text_is_a_fetch_error():
    assert FetchRefused.parse("unknown url type: 'x'").reason is Reason.FETCH
