"""The address policy: whatever form an internal address takes, it is refused."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ledger import Reason
from stages.fetch.addresses import AddressPolicy, special_purpose
from stages.fetch.errors import FetchRefused

V4 = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
V6 = st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)


@given(st.one_of(V4, V6))
def test_never_more_permissive_than_the_standard_library(address):
    embedded = isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address.sixtofour)
    if special_purpose(address) is None and not embedded:
        assert address.is_global and not address.is_multicast


@given(V4)
def test_an_embedded_address_is_judged_by_what_is_inside(inner):
    verdict = special_purpose(inner)
    for prefix, shift in [("::ffff:0:0", 0), ("64:ff9b::", 0), ("2002::", 80)]:
        outer = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(inner) << shift)
        assert special_purpose(outer) == verdict


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("127.0.0.1", "loopback"),
        ("169.254.169.254", "link-local"),
        ("10.1.2.3", "private"),
        ("172.31.255.255", "private"),
        ("192.168.0.1", "private"),
        ("100.64.0.1", "carrier-grade NAT"),
        ("224.0.0.251", "multicast"),
        ("255.255.255.255", "reserved"),
        ("0.0.0.0", "this network"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::127.0.0.1", "reserved"),
        ("fe80::1%eth0", "link-local"),
        ("fd00::1", "private"),
        ("ff02::1", "multicast"),
        ("64:ff9b::169.254.169.254", "link-local"),
        ("64:ff9b:1::1", "reserved"),
        ("2002:7f00:1::", "loopback"),
        ("2001:0:53aa:64c:0:0:80ff:fffe", "protocol assignments"),
    ],
)
def test_internal_addresses_have_a_name(address, block):
    assert special_purpose(ipaddress.ip_address(address)) == block


@pytest.mark.parametrize("address", ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808"])
def test_public_addresses_pass(address):
    assert AddressPolicy([]).check("any.test", 80, ipaddress.ip_address(address))


def test_allowed_by_host_or_by_host_and_port():
    loopback = ipaddress.ip_address("127.0.0.1")
    policy = AddressPolicy(["All.test", "one.test:8080"])
    assert policy.check("all.test", 1, loopback) is False
    assert policy.check("one.test", 8080, loopback) is False
    for host, port in [("one.test", 80), ("other.test", 8080), ("sub.all.test", 80)]:
        with pytest.raises(FetchRefused) as refused:
            policy.check(host, port, loopback)
        assert refused.value.reason is Reason.REFUSED_ADDRESS
        assert "loopback" in refused.value.detail
