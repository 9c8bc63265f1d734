"""Resource profiles: which machines a run wants, derived from what its stages ask for.

A cluster has a head that computes nothing and two groups of workers: stages that ask for GPUs are placed on the `gpu`
group, all others on the `cpu` group. The smallest size of a group holds the smallest worker pools of all its stages at
once (so a run that starts passes `check_capacity`), the largest holds the largest.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field, model_validator

from cluster.capacity import CPU_HEADROOM, Node, StageDemand, check_capacity
from schemas.section import Resources, Section, Workers

GIB = 2**30


class NodeShape(Section):
    """What one node gives to Ray, and the machine that has it; the rest of the machine is for its own daemons."""

    cpus: int = Field(ge=1, description="CPUs that Ray may use")
    gpus: int = Field(0, ge=0, description="GPUs that Ray may use")
    memory: int = Field(ge=GIB, description="memory that Ray may hand out, in bytes")
    machine: str = Field(description="instance type of the cloud, for the autoscaler's YAML")

    @property
    def resources(self) -> dict[str, float]:
        """As Ray names them."""
        return {"CPU": float(self.cpus), "GPU": float(self.gpus), "memory": float(self.memory)}


class NodeGroup(Section):
    """Nodes of one shape, of which the cluster has between `min_nodes` and `max_nodes`."""

    name: str = Field(pattern=r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$", description="name of the group")
    node: NodeShape = Field(description="shape of its nodes")
    min_nodes: int = Field(0, ge=0, description="nodes that are always there")
    max_nodes: int = Field(ge=1, description="nodes that the autoscaler may start")

    @model_validator(mode="after")
    def _ordered(self) -> "NodeGroup":
        if self.max_nodes < self.min_nodes:
            raise ValueError(f"max_nodes ({self.max_nodes}) must not be below min_nodes ({self.min_nodes})")
        return self


class Profile(Section):
    """What a cluster is made of beside what the stages ask for."""

    name: str = Field("densefusion", pattern=r"^[a-z]([a-z0-9-]{0,40}[a-z0-9])?$", description="name of the cluster")
    cpu_image: str = Field("densefusion:cpu", description="image built from docker/Dockerfile.cpu")
    gpu_image: str = Field("densefusion:gpu", description="image built from docker/Dockerfile.gpu")
    head: NodeShape = Field(
        NodeShape(cpus=4, memory=16 * GIB, machine="m7i.2xlarge"), description="the head; no stage runs on it"
    )
    cpu_node: NodeShape = Field(
        NodeShape(cpus=44, memory=160 * GIB, machine="m7i.12xlarge"), description="a node of the cpu group"
    )
    gpu_node: NodeShape = Field(
        NodeShape(cpus=44, gpus=4, memory=320 * GIB, machine="g6e.12xlarge"), description="a node of the gpu group"
    )
    shared_memory: int = Field(8 * GIB, ge=GIB, description="/dev/shm of every node, in bytes; beside its memory")
    object_store: int = Field(2 * GIB, ge=128 * 2**20, description="Ray's object store in /dev/shm, in bytes")
    claim: str = Field("densefusion-runs", description="PersistentVolumeClaim (ReadWriteMany) that holds the runs")
    runs: str = Field("/runs", pattern="^/", description="where the runs are mounted on every node")
    region: str = Field("us-west-2", description="region of the cloud, for the autoscaler's YAML")
    idle_seconds: int = Field(600, ge=60, description="how long a node stays without work before it is taken away")

    @model_validator(mode="after")
    def _store_fits(self) -> "Profile":
        if self.object_store > self.shared_memory:
            raise ValueError("object_store must fit into shared_memory")
        return self


def stage_demands(config: Mapping[str, Any]) -> list[StageDemand]:
    """What the stages of a configuration ask for: every mapping in it that has a `resources` mapping, by its path."""

    def walk(section: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[StageDemand]:
        for key, value in section.items():
            if key == "resources" and isinstance(value, Mapping):
                yield StageDemand(".".join(path), Resources.model_validate(value))
            elif isinstance(value, Mapping):
                yield from walk(value, (*path, key))

    return list(walk(config, ()))


def worker_groups(demands: Sequence[StageDemand], profile: Profile) -> list[NodeGroup]:
    """The groups of workers that the stages want; a cpu group always, a gpu group where a stage asks for one.

    Raises:
        RequestError: a worker of a stage does not fit on a node of its group.
    """
    headroom = StageDemand("ray", Resources(cpus=CPU_HEADROOM))
    members = {
        "cpu": (profile.cpu_node, [*(d for d in demands if d.resources.gpus == 0), headroom]),
        "gpu": (profile.gpu_node, [d for d in demands if d.resources.gpus > 0]),
    }
    groups = []
    for name, (shape, stages) in members.items():
        for stage in stages:
            single = stage.resources.model_copy(update={"workers": Workers()})
            check_capacity([StageDemand(stage.name, single)], [shape.resources], cpu_headroom=0)
        if stages:
            smallest, largest = (
                nodes_needed([(d.worker, count(d.resources.workers)) for d in stages], shape.resources)
                for count in (lambda w: w.min, lambda w: w.max)
            )
            groups.append(NodeGroup(name=name, node=shape, min_nodes=smallest, max_nodes=max(smallest, largest)))
    return groups


def nodes_needed(workers: Sequence[tuple[Node, int]], node: Node) -> int:
    """How many nodes hold all the workers, placed largest first into the first node with room.

    Args:
        workers: (what one takes, how many of them), each of which fits on an empty node.
        node: what one node has.
    """
    share = {kind: amount for kind, amount in node.items() if amount}
    nodes: list[dict[str, float]] = []
    for worker, count in sorted(
        workers, key=lambda w: max(w[0][k] / share[k] for k in w[0]) if w[0] else 0, reverse=True
    ):
        for _ in range(count if worker else 0):
            free = next((n for n in nodes if all(n[kind] >= amount - 1e-6 for kind, amount in worker.items())), None)
            if free is None:
                free = dict(share)
                nodes.append(free)
            for kind, amount in worker.items():
                # A fraction of a GPU takes its place on one GPU: of 0.6 only one fits.
                free[kind] -= 1 / int(1 / amount + 1e-6) if kind == "GPU" and amount < 1 else amount
    return len(nodes)


def grown(nodes: Sequence[Node], groups: Sequence[NodeGroup]) -> list[Node]:
    """What a cluster may grow to: `max_nodes` of every group that was declared; without groups, the nodes it has."""
    if not groups:
        return list(nodes)
    return [group.node.resources for group in groups for _ in range(group.max_nodes)]
