"""One connector a file; `CONNECTORS` is where a configuration finds them by name."""

from fusion.model.connectors.base import Connector
from fusion.model.connectors.conv_gate import ConvGate
from fusion.model.connectors.dbfusion import DBFusion
from fusion.model.connectors.dci import DCI
from fusion.model.connectors.mlp import MLP
from fusion.model.connectors.s2 import S2
from fusion.model.connectors.sci import SCI
from fusion.model.connectors.sti import STI
from schemas.errors import RequestError

CONNECTORS: dict[str, type[Connector]] = {one.name: one for one in (MLP, S2, STI, SCI, DCI, ConvGate, DBFusion)}


def connector_of(name: str) -> type[Connector]:
    """Raises RequestError for a name that is not there."""
    try:
        return CONNECTORS[name]
    except KeyError:
        raise RequestError(f"There is no connector {name}. There are: {', '.join(CONNECTORS)}.") from None
