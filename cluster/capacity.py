"""Does the cluster have what the stages ask for? Answered before anything starts.

Ray keeps a worker that fits nowhere waiting for ever, without an error. So what cannot be placed is refused here, and
only that: the checks are necessary conditions, a run that could be placed is never refused.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from schemas.errors import RequestError
from schemas.section import Resources

Node = Mapping[str, float]
"""Resources of one node, as Ray names them: `CPU` and `GPU` counts, `memory` bytes. What is absent is 0."""

# Ray Data's readers and splitters are tasks of one CPU; with every CPU held by worker pools they wait for ever.
CPU_HEADROOM = 1.0

# Resources are sums of fractions such as 0.1.
_EPSILON = 1e-6


@dataclass(frozen=True)
class StageDemand:
    """What one stage asks of the cluster; `name` is also the path of its config section."""

    name: str
    resources: Resources

    @property
    def worker(self) -> dict[str, float]:
        """What one worker takes, as Ray names it; zeros are left out."""
        asked = {"CPU": self.resources.cpus, "GPU": self.resources.gpus, "memory": float(self.resources.memory or 0)}
        return {kind: amount for kind, amount in asked.items() if amount}


# What a kind of resource is called in the config and in a sentence.
_SETTINGS = {"GPU": "gpus", "CPU": "cpus", "memory": "memory"}


def cluster_capacity() -> list[dict[str, float]]:
    """Resources of every living node of the connected cluster."""
    import ray

    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def check_capacity(demands: Sequence[StageDemand], nodes: Iterable[Node], cpu_headroom: float = CPU_HEADROOM) -> None:
    """Refuse a request that the cluster cannot place.

    Args:
        demands: the stages that run at the same time.
        nodes: the cluster: `cluster_capacity()`, or, for one that grows, what it may grow to
            (`cluster.profiles.grown`).
        cpu_headroom: CPUs that must stay free beside the smallest worker pools.

    Raises:
        RequestError: a stage's worker fits on no node, or the smallest pools (`workers.min`) together do not fit. The
            message names the stage, what it asks, what there is, and the setting to change.
    """
    nodes = list(nodes)
    for demand in demands:
        _check_worker(demand, nodes)
        _check_pool(demand, nodes)
    for kind in _SETTINGS:
        _check_together(demands, nodes, kind, cpu_headroom if kind == "CPU" else 0.0)


def _check_worker(demand: StageDemand, nodes: list[Node]) -> None:
    gpus = demand.resources.gpus
    if gpus > 1 and gpus != int(gpus):
        raise RequestError(
            f"Stage `{demand.name}` asks for {gpus:g} GPUs per worker; a worker may share one GPU or hold whole ones. "
            f"Change it with `--set {demand.name}.resources.gpus={math.ceil(gpus)}`."
        )
    if any(_fits(demand.worker, node) for node in nodes):
        return
    # The first kind that no node has enough of; where each alone would fit, the whole is named.
    lacking = [kind for kind in demand.worker if all(_short(demand.worker, node, kind) for node in nodes)]
    asked = " and ".join(_amount(kind, demand.worker[kind]) for kind in lacking or demand.worker)
    raise RequestError(
        f"Stage `{demand.name}` asks for {asked} per worker, and no node of the cluster has that ({_describe(nodes)}). "
        f"{_advice(demand, nodes)}"
    )


def _check_pool(demand: StageDemand, nodes: list[Node]) -> None:
    """Workers of one stage, each whole on one node and on one GPU."""
    wanted = demand.resources.workers.min
    room = sum(_room(demand.worker, node, wanted) for node in nodes)
    if room < wanted:
        raise RequestError(
            f"Stage `{demand.name}` starts with {wanted} workers of {_worker(demand)}, and the cluster has room for "
            f"{room} ({_describe(nodes)}). Start fewer with `--set {demand.name}.resources.workers.min={room}`, "
            "make a worker smaller, or add nodes."
        )


def _check_together(demands: Sequence[StageDemand], nodes: list[Node], kind: str, headroom: float) -> None:
    shares = {d.name: d.worker.get(kind, 0.0) * d.resources.workers.min for d in demands}
    asked, there = sum(shares.values()), sum(node.get(kind, 0.0) for node in nodes)
    if not asked or asked + headroom <= there + _EPSILON:
        return
    parts = ", ".join(f"{name} {_amount(kind, share)}" for name, share in shares.items() if share)
    spare = f", {_amount(kind, headroom)} must stay free for Ray's own tasks," if headroom else ""
    raise RequestError(
        f"The stages that run at the same time ask for {_amount(kind, asked)} ({parts}){spare} and the cluster has "
        f"{_amount(kind, there)} ({_describe(nodes)}). {_advice_together(demands, shares, kind, there - headroom)}"
    )


def _advice_together(demands: Sequence[StageDemand], shares: dict[str, float], kind: str, there: float) -> str:
    largest = max(demands, key=lambda d: shares[d.name])
    left = there - sum(shares.values()) + shares[largest.name]
    each = left / largest.resources.workers.min + _EPSILON
    # Rounded down to what the setting takes: bytes, whole GPUs above one, hundredths.
    value = float(int(each)) if kind == "memory" or (kind == "GPU" and each >= 1) else math.floor(each * 100) / 100
    if value > 0:
        return (
            f"Stage `{largest.name}` asks for most; give its workers less with "
            f"`--set {largest.name}.resources.{_SETTINGS[kind]}={value:.15g}`, or add nodes."
        )
    return (
        f"Give several of them less (`--set {largest.name}.resources.{_SETTINGS[kind]}=…`; fractions share), start "
        "fewer workers (`workers.min`), or add nodes."
    )


def _fits(worker: Node, node: Node) -> bool:
    return not any(_short(worker, node, kind) for kind in worker)


def _short(worker: Node, node: Node, kind: str) -> bool:
    return worker[kind] > node.get(kind, 0.0) + _EPSILON


def _room(worker: Node, node: Node, most: int) -> int:
    """How many such workers an empty node takes, `most` at most. A fraction of a GPU does not span two GPUs."""
    room = most
    for kind, amount in worker.items():
        if kind == "GPU" and amount < 1:
            places = int(node.get(kind, 0.0)) * math.floor(1 / amount + _EPSILON)
        else:
            places = math.floor(node.get(kind, 0.0) / amount + _EPSILON)
        room = min(room, places)
    return room


def _advice(demand: StageDemand, nodes: list[Node]) -> str:
    """The settings that make a worker fit on the node that is nearest to having room for it."""
    if "GPU" in demand.worker and not any(node.get("GPU", 0.0) for node in nodes):
        return f"Run it on the CPU with `--set {demand.name}.resources.gpus=0`, or add a node with GPUs."
    if not nodes:
        return "Add nodes."
    lacks = [[kind for kind in demand.worker if _short(demand.worker, node, kind)] for node in nodes]
    best = min(range(len(nodes)), key=lambda i: (len(lacks[i]), -nodes[i].get("GPU", 0.0), -nodes[i].get("CPU", 0.0)))
    changes = [
        f"--set {demand.name}.resources.{_SETTINGS[kind]}={nodes[best].get(kind, 0.0):.15g}" for kind in lacks[best]
    ]
    return f"Make a worker smaller with `{' '.join(changes)}`, or add a larger node."


def _worker(demand: StageDemand) -> str:
    return " and ".join(_amount(kind, amount) for kind, amount in demand.worker.items()) or "nothing"


def _amount(kind: str, amount: float) -> str:
    if kind == "memory":
        return f"{amount / 2**30:.1f} GiB"
    return f"{amount:g} {kind}{'' if amount == 1 else 's'}"


def _describe(nodes: list[Node]) -> str:
    """`2 nodes of 4 CPUs, 0 GPUs, 8.0 GiB; 1 node of …`."""
    if not nodes:
        return "it has no nodes"
    shapes: dict[str, int] = {}
    for node in nodes:
        shape = ", ".join(_amount(kind, node.get(kind, 0.0)) for kind in ("CPU", "GPU", "memory"))
        shapes[shape] = shapes.get(shape, 0) + 1
    return "; ".join(f"{count} node{'' if count == 1 else 's'} of {shape}" for shape, count in shapes.items())
