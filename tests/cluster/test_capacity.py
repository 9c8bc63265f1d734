"""What cannot be placed is refused before the start, with the setting that would change it."""

import json
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.capacity import StageDemand, check_capacity
from schemas.errors import RequestError
from schemas.section import Resources, Workers

GIB = 2**30
LAPTOP = [{"CPU": 4.0, "memory": 8.0 * GIB}]


def demand(name: str, workers: int = 1, **resources: float) -> StageDemand:
    return StageDemand(name, Resources(workers=Workers(min=workers, max=max(workers, 4)), **resources))


def refusal(demands: list[StageDemand], nodes: list[dict[str, float]]) -> str:
    with pytest.raises(RequestError) as caught:
        check_capacity(demands, nodes)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_fits_passes() -> None:
    check_capacity([demand("embed", cpus=1), demand("caption", cpus=1, gpus=0)], LAPTOP)


def test_gpu_stage_without_gpus() -> None:
    message = refusal([demand("embed"), demand("caption", gpus=1)], LAPTOP)
    assert "`caption` asks for 1 GPU per worker" in message
    assert "1 node of 4 CPUs, 0 GPUs, 8.0 GiB" in message
    assert "--set caption.resources.gpus=0" in message


def test_one_worker_must_fit_on_one_node() -> None:
    message = refusal([demand("caption", gpus=4)], [{"CPU": 8.0, "GPU": 2.0}] * 2)
    assert "4 GPUs per worker" in message
    assert "--set caption.resources.gpus=2" in message


def test_kinds_that_no_single_node_has_together() -> None:
    message = refusal([demand("caption", cpus=16, gpus=1)], [{"CPU": 32.0}, {"CPU": 8.0, "GPU": 1.0}])
    assert "16 CPUs and 1 GPU per worker" in message


def test_memory_is_checked() -> None:
    message = refusal([demand("embed", memory=16 * GIB)], LAPTOP)
    assert "16.0 GiB per worker" in message
    assert f"--set embed.resources.memory={8 * GIB}" in message


def test_a_gpu_fraction_does_not_span_two_gpus() -> None:
    nodes = [{"CPU": 8.0, "GPU": 2.0}]
    check_capacity([demand("embed", gpus=0.6, workers=2)], nodes)
    assert "embed.resources.workers.min=2" in refusal([demand("embed", gpus=0.6, workers=3)], nodes)
    assert "share one GPU or hold whole ones" in refusal([demand("embed", gpus=1.5)], nodes)


def test_stages_together_leave_a_cpu_for_ray() -> None:
    check_capacity([demand("embed", cpus=1), demand("caption", cpus=2)], LAPTOP)
    message = refusal([demand("embed", cpus=1), demand("caption", cpus=3)], LAPTOP)
    assert "embed 1 CPU, caption 3 CPUs" in message
    assert "--set caption.resources.cpus=2" in message


def test_no_nodes() -> None:
    assert "no nodes" in refusal([demand("embed")], [])


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[StageDemand], list[dict[str, float]]]:
    amounts = st.sampled_from([0.1, 0.25, 0.5, 0.6, 1, 2, 4])
    demands = [
        demand(f"s{i}", workers=draw(st.integers(1, 3)), cpus=draw(amounts), gpus=draw(st.sampled_from([0, 0.5, 1, 2])))
        for i in range(draw(st.integers(1, 4)))
    ]
    nodes = draw(
        st.lists(
            st.fixed_dictionaries({"CPU": st.integers(0, 8).map(float), "GPU": st.integers(0, 4).map(float)}),
            max_size=3,
        )
    )
    return demands, nodes


@given(requests())
def test_following_the_advice_ends_in_a_request_that_passes_or_wants_other_nodes(request_: tuple) -> None:
    demands, nodes = request_
    settings = {d.name: d.resources.model_dump() for d in demands}
    for _ in range(40):
        try:
            check_capacity([StageDemand(n, Resources.model_validate(r)) for n, r in settings.items()], nodes)
        except RequestError as error:
            advice = re.findall(r"--set (\w+)\.resources\.([\w.]+)=([\d.]+)", str(error))
            if not advice or ("workers.min", "0") in [setting[1:] for setting in advice]:
                return
            for name, key, value in advice:
                if key == "workers.min":
                    settings[name]["workers"] = {"min": int(value), "max": 4}
                else:
                    assert float(value) != settings[name][key]
                    settings[name][key] = float(value)
        else:
            return
    pytest.fail("the advice never ends")


SCRIPT = """
import json
import ray
from ray.cluster_utils import Cluster

from cluster.capacity import StageDemand, check_capacity, cluster_capacity
from schemas.errors import RequestError
from schemas.section import Resources

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 0, "include_dashboard": False})
cluster.add_node(num_cpus=2, num_gpus=4)
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
nodes = cluster_capacity()
check_capacity([StageDemand("caption", Resources(gpus=4))], nodes)
try:
    check_capacity([StageDemand("caption", Resources(gpus=5))], nodes)
    refused = ""
except RequestError as error:
    refused = str(error)
ray.shutdown()
cluster.shutdown()
print(json.dumps({"gpus": sorted(node.get("GPU", 0) for node in nodes), "refused": refused}))
"""


@pytest.mark.ray
def test_a_cluster_with_declared_gpus() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["gpus"] == [0, 4]
    assert "--set caption.resources.gpus=4" in answer["refused"]
