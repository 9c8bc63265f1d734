"""Manifests follow from what the stages ask for, hold together, and the committed samples are current."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import autoscaler, kuberay
from cluster.capacity import StageDemand, check_capacity
from cluster.profiles import GIB, NodeShape, Profile, grown, nodes_needed, stage_demands, worker_groups
from cluster.write import write_manifests
from schemas.errors import RequestError
from schemas.section import Resources, Workers

ROOT = Path(__file__).parents[2]
PRESET = ROOT / "pipeline" / "presets" / "densefusion-1m.yaml"
SAMPLES = ROOT / "cluster" / "manifests"

amounts = st.sampled_from([0, 0.1, 0.25, 0.5, 1, 2, 4])
resources = st.builds(
    lambda cpus, gpus, low, more: Resources(cpus=cpus, gpus=gpus, workers=Workers(min=low, max=low + more)),
    amounts,
    amounts,
    st.integers(1, 5),
    st.integers(0, 5),
)
demand_lists = st.lists(resources, min_size=1, max_size=5).map(
    lambda many: [StageDemand(f"s{i}", one) for i, one in enumerate(many)]
)


@pytest.mark.parametrize("module", [kuberay, autoscaler])
def test_samples_are_what_the_generator_gives(module: Any, tmp_path: Path) -> None:
    for file in write_manifests(module.manifests, PRESET, None, tmp_path):
        again = f"python -m {module.__name__} {PRESET.relative_to(ROOT)} --out {SAMPLES.relative_to(ROOT)}"
        assert file.read_text() == (SAMPLES / file.name).read_text(), f"stale: {again}"


def test_stages_are_found_by_their_path() -> None:
    config = {
        "ray": {"address": "auto"},
        "perceive": {"ocr": {"resources": {"cpus": 2}}, "tags": {"resources": {"gpus": 0.5}}},
        "embed": {"resources": {"gpus": 1, "workers": {"min": 2, "max": 4}}},
    }
    assert {d.name: d.worker for d in stage_demands(config)} == {
        "perceive.ocr": {"CPU": 2},
        "perceive.tags": {"CPU": 1, "GPU": 0.5},
        "embed": {"CPU": 1, "GPU": 1},
    }


@given(demand_lists)
def test_the_smallest_cluster_passes_the_check_and_grows(demands: list[StageDemand]) -> None:
    groups = worker_groups(demands, Profile())
    check_capacity(demands, [group.node.resources for group in groups for _ in range(group.min_nodes)])
    check_capacity(demands, grown([], groups))
    assert ("gpu" in {group.name for group in groups}) == any(d.resources.gpus for d in demands)


@given(demand_lists)
def test_nodes_needed_is_never_below_what_the_sums_need(demands: list[StageDemand]) -> None:
    node = {"CPU": 4.0, "GPU": 4.0}
    workers = [(d.worker, d.resources.workers.max) for d in demands]
    for kind, size in node.items():
        total = sum(worker.get(kind, 0.0) * count for worker, count in workers)
        assert nodes_needed(workers, node) * size >= total - 1e-6


def test_a_gpu_is_not_shared_by_more_than_fit_on_it() -> None:
    assert nodes_needed([({"GPU": 0.6}, 4)], {"GPU": 2.0}) == 2


def test_a_worker_larger_than_a_node_is_refused() -> None:
    with pytest.raises(RequestError, match="`caption` asks for 8 GPUs per worker"):
        worker_groups([StageDemand("caption", Resources(gpus=8))], Profile())


@given(demand_lists)
def test_kuberay_manifests_hold_together(demands: list[StageDemand]) -> None:
    profile = Profile()
    cluster, job = kuberay.ray_cluster(demands, profile), kuberay.ray_job(demands, profile, "laion-1")
    assert (cluster["kind"], job["kind"]) == ("RayCluster", "RayJob")
    assert cluster["apiVersion"] == job["apiVersion"] == "ray.io/v1"
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]
    assert job["spec"]["entrypoint"].endswith("run /runs/laion-1.yaml --run-dir /runs/laion-1 --address auto")
    spec = cluster["spec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    _check_pod(spec["headGroupSpec"]["template"]["spec"], "densefusion:cpu", None)
    for group in spec["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] == group["replicas"] <= group["maxReplicas"]
        gpus = {"cpu": None, "gpu": "4"}[group["groupName"]]
        _check_pod(group["template"]["spec"], f"densefusion:{group['groupName']}", gpus)
        # Kubernetes would reject other than strings here.
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    json.dumps([cluster, job])


def _check_pod(pod: dict[str, Any], image: str, gpus: str | None) -> None:
    (container,) = pod["containers"]
    assert container["image"] == image
    assert container["resources"]["limits"] == container["resources"]["requests"]
    assert container["resources"]["limits"].get("nvidia.com/gpu") == gpus
    assert bool(pod.get("tolerations")) == bool(gpus)
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes[mounted["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
    assert "persistentVolumeClaim" in volumes[mounted["/runs"]]
    assert set(mounted.values()) == set(volumes)


def test_a_job_name_that_kubernetes_takes_not() -> None:
    with pytest.raises(RequestError, match="no RayJob named 'My_Run'"):
        kuberay.ray_job([], Profile(), "My_Run")


@settings(max_examples=10)
@given(demand_lists)
def test_autoscaler_yaml_is_valid_to_ray(demands: list[StageDemand]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    manifest = autoscaler.autoscaler(demands, Profile())
    filled = prepare_config(copy.deepcopy(manifest))
    validate_config(filled)
    # Ray fills in what is absent, among it commands that install another Ray.
    assert all(filled[key] == [] for key in ("setup_commands", "head_setup_commands", "worker_setup_commands"))
    types = manifest["available_node_types"]
    workers = {name: node for name, node in types.items() if name != manifest["head_node_type"]}
    assert len(workers) == len(types) - 1
    assert manifest["max_workers"] == sum(node["max_workers"] for node in workers.values())
    assert all(0 <= node["min_workers"] <= node["max_workers"] for node in workers.values())


def test_a_profile_of_ones_own(tmp_path: Path) -> None:
    profile = tmp_path / "profile.yaml"
    shape = {"cpus": 8, "gpus": 8, "memory": 64 * GIB, "machine": "p5.48xlarge"}
    profile.write_text(yaml.safe_dump({"gpu_image": "registry.example/df:1", "gpu_node": shape}))
    config = tmp_path / "run.yaml"
    config.write_text("caption: {resources: {gpus: 8}}\n")
    file = next(f for f in write_manifests(kuberay.manifests, config, profile, tmp_path / "out") if "cluster" in f.name)
    pods = [group["template"]["spec"] for group in yaml.safe_load(file.read_text())["spec"]["workerGroupSpecs"]]
    _check_pod(pods[1], "registry.example/df:1", "8")
    assert NodeShape(**shape).resources["GPU"] == 8

    profile.write_text("gpu_images: x\n")
    with pytest.raises(RequestError, match="gpu_images"):
        write_manifests(kuberay.manifests, config, profile, tmp_path)
    config.write_text("caption: {resources: {gpus: -1}}\n")
    with pytest.raises(RequestError, match=r"gpus of .*run\.yaml"):
        write_manifests(kuberay.manifests, config, None, tmp_path)
    with pytest.raises(RequestError, match="cannot be read"):
        write_manifests(kuberay.manifests, tmp_path / "none.yaml", None, tmp_path)
