"""KubeRay manifests of a run: a `RayCluster` that stays, or a `RayJob` that comes and goes with the run.

`python -m cluster.kuberay CONFIG` writes both, for the resources that the configuration's stages ask for.
"""

import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from cluster.capacity import StageDemand
from cluster.profiles import NodeShape, Profile, worker_groups
from cluster.submit import entrypoint
from schemas.errors import RequestError

Manifest = dict[str, Any]

API_VERSION = "ray.io/v1"

# KubeRay appends to the name, and the whole must be a DNS label.
NAME = re.compile(r"[a-z]([a-z0-9-]{0,45}[a-z0-9])?")

# docker/Dockerfile.* run as this user; the run volume is made writable for its group.
USER = 1000

# A RayJob whose driver died is started again, and the run resumes.
BACKOFF_LIMIT = 3
KEPT_SECONDS = 3600


def ray_cluster(demands: Sequence[StageDemand], profile: Profile) -> Manifest:
    """A `RayCluster` to which runs are submitted.

    Raises:
        RequestError: a worker of a stage does not fit on a node of its group.
    """
    return {
        "apiVersion": API_VERSION,
        "kind": "RayCluster",
        "metadata": {"name": profile.name},
        "spec": _cluster_spec(demands, profile),
    }


def ray_job(demands: Sequence[StageDemand], profile: Profile, run_id: str) -> Manifest:
    """A `RayJob` that brings its own cluster, does the run, and takes the cluster away.

    On the volume of the runs, `<run_id>.yaml` is the configuration and `<run_id>/` the run directory.

    Args:
        demands, profile: as in `ray_cluster`.
        run_id: name of the run and of the job.

    Raises:
        RequestError: a worker of a stage does not fit on a node of its group, or Kubernetes takes no such name.
    """
    if not NAME.fullmatch(run_id):
        raise RequestError(
            f"Kubernetes takes no RayJob named {run_id!r}: rename the configuration file so that its stem is up to 47 "
            "lower-case letters, digits and `-`, beginning with a letter."
        )
    return {
        "apiVersion": API_VERSION,
        "kind": "RayJob",
        "metadata": {"name": run_id},
        "spec": {
            "entrypoint": entrypoint(f"{profile.runs}/{run_id}", config=f"{profile.runs}/{run_id}.yaml"),
            "submissionMode": "K8sJobMode",
            "backoffLimit": BACKOFF_LIMIT,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "rayClusterSpec": _cluster_spec(demands, profile),
        },
    }


def _cluster_spec(demands: Sequence[StageDemand], profile: Profile) -> Manifest:
    return {
        "rayVersion": version("ray"),
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {"version": "v2", "idleTimeoutSeconds": profile.idle_seconds},
        "authOptions": {"mode": "token"},
        "headGroupSpec": {
            # Workers of stages stay off the head: with it, the whole cluster would go.
            "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0", **_memory(profile.head, profile)},
            "template": _pod("ray-head", profile.head, profile.cpu_image, profile),
        },
        "workerGroupSpecs": [
            {
                "groupName": group.name,
                "replicas": group.min_nodes,
                "minReplicas": group.min_nodes,
                "maxReplicas": group.max_nodes,
                "rayStartParams": _memory(group.node, profile),
                "template": _pod(
                    "ray-worker", group.node, profile.gpu_image if group.node.gpus else profile.cpu_image, profile
                ),
            }
            for group in worker_groups(demands, profile)
        ],
    }


def _memory(shape: NodeShape, profile: Profile) -> dict[str, str]:
    return {"memory": str(shape.memory), "object-store-memory": str(profile.object_store)}


def _pod(container: str, shape: NodeShape, image: str, profile: Profile) -> Manifest:
    # Requests equal limits: Ray takes a container's limits for what the node has.
    memory = _quantity(shape.memory + profile.shared_memory)
    resources: dict[str, str] = {"cpu": str(shape.cpus), "memory": memory}
    if shape.gpus:
        resources["nvidia.com/gpu"] = str(shape.gpus)
    ports = [("gcs", 6379), ("dashboard", 8265), ("client", 10001)] if container == "ray-head" else []
    spec: Manifest = {
        "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "fsGroup": USER},
        # The engine of a caption worker is a child process and needs time to end.
        "terminationGracePeriodSeconds": 60,
        "containers": [
            {
                "name": container,
                "image": image,
                "resources": {"requests": resources, "limits": resources},
                "volumeMounts": [
                    {"name": "shared-memory", "mountPath": "/dev/shm"},
                    {"name": "runs", "mountPath": profile.runs},
                ],
                **({"ports": [{"name": name, "containerPort": port} for name, port in ports]} if ports else {}),
            }
        ],
        "volumes": [
            {
                "name": "shared-memory",
                "emptyDir": {"medium": "Memory", "sizeLimit": _quantity(profile.shared_memory)},
            },
            {"name": "runs", "persistentVolumeClaim": {"claimName": profile.claim}},
        ],
    }
    if shape.gpus:
        # GPU nodes are usually tainted so that nothing else lands on them.
        spec["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    return {"spec": spec}


def _quantity(size: int) -> str:
    """Bytes as a Kubernetes quantity; whole mebibytes, rounded down."""
    return f"{size // 2**30}Gi" if size % 2**30 == 0 else f"{size // 2**20}Mi"


def manifests(name: str, demands: Sequence[StageDemand], profile: Profile) -> dict[str, Manifest]:
    """File name → manifest, of a configuration called `name`."""
    return {"raycluster.yaml": ray_cluster(demands, profile), "rayjob.yaml": ray_job(demands, profile, name)}


if __name__ == "__main__":
    from cluster.write import main

    main(manifests, __doc__)
