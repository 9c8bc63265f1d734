"""Which addresses may be connected to: public unicast ones, and those of hosts that the config allows by name."""

import ipaddress
from collections.abc import Iterable

from schemas.ledger import Reason
from stages.fetch.errors import FetchRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# The IANA special-purpose registries (RFC 6890 and its updates). Spelt out rather than taken from ipaddress.is_global,
# which differs between Python 3.11 and 3.12 and calls multicast global.
_SPECIAL_V4 = {
    ipaddress.IPv4Network(network): name
    for network, name in {
        "0.0.0.0/8": "this network",
        "10.0.0.0/8": "private",
        "100.64.0.0/10": "carrier-grade NAT",
        "127.0.0.0/8": "loopback",
        "169.254.0.0/16": "link-local",
        "172.16.0.0/12": "private",
        "192.0.0.0/24": "protocol assignments",
        "192.0.2.0/24": "documentation",
        "192.88.99.0/24": "6to4 relay",
        "192.168.0.0/16": "private",
        "198.18.0.0/15": "benchmarking",
        "198.51.100.0/24": "documentation",
        "203.0.113.0/24": "documentation",
        "224.0.0.0/4": "multicast",
        "240.0.0.0/4": "reserved",
    }.items()
}
_SPECIAL_V6 = {
    ipaddress.IPv6Network(network): name
    for network, name in {
        "::/128": "unspecified",
        "::1/128": "loopback",
        "fc00::/7": "private",
        "fe80::/10": "link-local",
        "ff00::/8": "multicast",
        "2001::/23": "protocol assignments",
        "2001:db8::/32": "documentation",
        "3fff::/20": "documentation",
    }.items()
}
_GLOBAL_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")

# IPv6 networks whose addresses carry an IPv4 address, and how far it stands from the lowest bit.
_EMBEDDED_V4 = {
    ipaddress.IPv6Network("::ffff:0:0/96"): 0,
    ipaddress.IPv6Network("64:ff9b::/96"): 0,
    ipaddress.IPv6Network("2002::/16"): 80,
}


def special_purpose(address: Address) -> str | None:
    """Name of the special-purpose block that an address lies in, None for public unicast.

    IPv4-mapped, NAT64 (64:ff9b::/96) and 6to4 addresses are judged by the IPv4 address inside them.
    """
    if isinstance(address, ipaddress.IPv6Address):
        # A scope makes an address differ from every network's, so it is taken off before the comparison.
        address = ipaddress.IPv6Address(int(address))
        for network, shift in _EMBEDDED_V4.items():
            if address in network:
                return special_purpose(ipaddress.IPv4Address(int(address) >> shift & 0xFFFFFFFF))
        for block, name in _SPECIAL_V6.items():
            if address in block:
                return name
        return None if address in _GLOBAL_UNICAST_V6 else "reserved"
    for block_v4, name in _SPECIAL_V4.items():
        if address in block_v4:
            return name
    return None


class AddressPolicy:
    """Public addresses for every host; any address for the hosts named `host` or `host:port`."""

    def __init__(self, allow_hosts: Iterable[str]) -> None:
        self._allowed = frozenset(host.lower() for host in allow_hosts)

    def check(self, host: str, port: int, address: Address) -> bool:
        """Whether the address is public; False means that only `allow_hosts` lets it through.

        Raises:
            FetchRefused: refused_address.
        """
        name = special_purpose(address)
        if name is None:
            return True
        if host not in self._allowed and f"{host}:{port}" not in self._allowed:
            raise FetchRefused(Reason.REFUSED_ADDRESS, f"{host} is at {address} ({name}); allow_hosts lets it in")
        return False
