from urllib.parse import urlsplit

import pyarrow as pa
import pytest

from stages.hosts import hosts


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/x.jpg",
        "HTTPS://Images.A.Example:8443/x?y=http://b.example/",
        "http://user:word@a.example/x@y",
        "http://user@b@a.example?x",
        "http://a.example#http://b.example",
        "http://[2001:DB8::1]:80/x",
        "http://127.0.0.1",
        "file:///home/x.jpg",
        "file:x.jpg",
        "x.jpg",
        "",
    ],
)
def test_a_host_is_what_the_standard_library_says(url):
    [host] = hosts(pa.chunked_array([pa.array([url])])).to_pylist()
    want = urlsplit(url).hostname
    assert (host or "").strip("[]") == (want or "")


def test_a_full_name_is_the_name():
    assert hosts(pa.chunked_array([pa.array(["http://a.example./x"])])).to_pylist() == ["a.example"]
