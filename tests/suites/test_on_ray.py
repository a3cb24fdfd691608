"""The same suite on a Ray cluster of two nodes, started here, gives what it gives in order."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from peftlab import bench
from peftlab.errors import MissingPackage
from peftlab.suites.execute import Ended
from peftlab.suites.on_ray import on_ray
from peftlab.suites.run import Places, plan_suite, run_suite
from peftlab.suites.schedule import on_this_machine

SUITE = 'methods = ["tfidf", "head"]\nseeds = [3]\n'


@pytest.fixture
def cluster(socket_enabled: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start two nodes of one CPU each that meet on this machine's loopback; return their address."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("absent: ray")
    import pytest_socket
    import ray
    from ray._private import ray_constants
    from ray.cluster_utils import Cluster

    # Ray would turn 127.0.0.1 into this machine's outer address, which tests do not open.
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)
    pytest_socket.socket_allow_hosts(["127.0.0.1", "localhost"], allow_unix_socket=True)
    node = {"num_cpus": 1, "object_store_memory": 80_000_000, "node_ip_address": "127.0.0.1"}
    made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        made.add_node(**node)
        made.wait_for_nodes()
        yield made.address
    finally:
        ray.shutdown()
        made.shutdown()


def metrics(records: Path) -> dict[str, Any]:
    """Return the metrics of each record by name."""
    return {path.stem: json.loads(path.read_text())["metrics"] for path in sorted(records.glob("*-s?.json"))}


@pytest.mark.slow
def test_two_ray_nodes_give_the_same_metrics_as_one_run_after_the_other(
    cluster: str,
    tmp_path: Path,
    write_suite: Callable[..., Path],
    in_this_process: Callable[..., Ended],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """To 1e-6, on CPU, with the same seeds; records and predictions come back from the nodes."""
    import ray

    suite = write_suite(tmp_path, SUITE)
    places = Places(tmp_path / "in order", tmp_path / "runs")
    run_suite(
        plan_suite(suite, lambda _: places, None),
        places,
        on_this_machine(1, None, in_this_process),
        1,
        Console(quiet=True),
    )
    in_order = metrics(places.records)
    folder = tmp_path / "on ray"
    words = [str(suite), "--results", str(folder), "--runs", str(folder / "runs"), "--ray", cluster]
    assert bench.main(words) == 0, capsys.readouterr().err
    on_cluster = metrics(folder / "tiny")

    assert len([node for node in ray.nodes() if node["Alive"]]) == 2
    assert list(on_cluster) == list(in_order) == ["head-s3", "tfidf-s3"]
    for name, expected in in_order.items():
        assert on_cluster[name]["validation"] == pytest.approx(expected["validation"], abs=1e-6)
        assert on_cluster[name]["test"].keys() == expected["test"].keys()
        for metric, estimate in expected["test"].items():
            assert on_cluster[name]["test"][metric] == pytest.approx(estimate, abs=1e-6)
    assert (folder / "tiny" / "head-s3.predictions.json.gz").is_file()


def test_without_ray_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackage, match=r'pip install "peftlab\[ray\]"'):
        on_ray("auto", threads=1)


def test_jobs_and_ray_together_are_refused(
    tmp_path: Path, write_suite: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main([str(write_suite(tmp_path, SUITE)), "--ray", "auto", "--jobs", "2"]) == 2
    assert "--jobs is for this machine" in capsys.readouterr().err
