"""The YAML of Ray's own autoscaler, for virtual machines of a cloud: `ray up autoscaler.yaml`.

`python -m cluster.autoscaler CONFIG` writes it, for the resources that the configuration's stages ask for.
"""

from collections.abc import Sequence
from typing import Any

from cluster.capacity import StageDemand
from cluster.profiles import NodeShape, Profile, worker_groups

Manifest = dict[str, Any]

HEAD = "head"
DISK_GIB = 500


def autoscaler(demands: Sequence[StageDemand], profile: Profile) -> Manifest:
    """A cluster of EC2 machines; the run directory is on a file system that the image mounts.

    Raises:
        RequestError: a worker of a stage does not fit on a node of its group.
    """
    groups = worker_groups(demands, profile)
    return {
        "cluster_name": profile.name,
        "max_workers": sum(group.max_nodes for group in groups),
        "idle_timeout_minutes": profile.idle_seconds / 60,
        "provider": {"type": "aws", "region": profile.region, "cache_stopped_nodes": False},
        "auth": {"ssh_user": "ubuntu"},
        "docker": {
            "container_name": "densefusion",
            "image": profile.cpu_image,
            "run_options": [f"--shm-size={profile.shared_memory}", "--ulimit nofile=65536:65536"],
        },
        "head_node_type": HEAD,
        "available_node_types": {
            # No CPUs declared: workers of stages stay off the head.
            HEAD: {"resources": {"CPU": 0}, "node_config": _machine(profile.head)},
            **{
                group.name: {
                    "min_workers": group.min_nodes,
                    "max_workers": group.max_nodes,
                    "resources": {
                        "CPU": group.node.cpus,
                        "memory": group.node.memory,
                        **({"GPU": group.node.gpus} if group.node.gpus else {}),
                    },
                    "node_config": _machine(group.node),
                    **({"docker": {"worker_image": profile.gpu_image}} if group.node.gpus else {}),
                }
                for group in groups
            },
        },
        # Everything is in the image. Ray's defaults would install a nightly Ray here.
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [
            "ray stop",
            # The dashboard stays on loopback; `ray dashboard` forwards it.
            "ray start --head --port=6379 --num-cpus=0 "
            f"--object-store-memory={profile.object_store} --autoscaling-config=~/ray_bootstrap_config.yaml",
        ],
        "worker_start_ray_commands": [
            "ray stop",
            f"ray start --address=$RAY_HEAD_IP:6379 --object-store-memory={profile.object_store}",
        ],
    }


def _machine(shape: NodeShape) -> Manifest:
    return {
        "InstanceType": shape.machine,
        "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": DISK_GIB, "VolumeType": "gp3"}}],
    }


def manifests(name: str, demands: Sequence[StageDemand], profile: Profile) -> dict[str, Manifest]:
    """File name → manifest, of a configuration called `name`."""
    return {"autoscaler.yaml": autoscaler(demands, profile)}


if __name__ == "__main__":
    from cluster.write import main

    main(manifests, __doc__)
