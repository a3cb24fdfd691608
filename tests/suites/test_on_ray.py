"""The same suite on a Ray cluster of two nodes, started here, gives what it gives in order."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from peftlab import bench
from peftlab.errors import MissingPackage
from peftlab.suites.on_ray import on_ray

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


def metrics(folder: Path, suite: Path, *more: str) -> dict[str, Any]:
    """Run the suite; return the metrics of each record, and the names of its files."""
    with redirect_stdout(StringIO()) as said:
        code = bench.main([str(suite), "--results", str(folder), "--runs", str(folder / "runs"), "--json", *more])
    assert code == 0, said.getvalue()
    return {path.stem: json.loads(path.read_text())["metrics"] for path in sorted((folder / "tiny").glob("*-s?.json"))}


@pytest.mark.slow
def test_two_ray_nodes_give_the_same_metrics_as_one_run_after_the_other(
    cluster: str, tmp_path: Path, write_suite: Callable[..., Path]
) -> None:
    """To 1e-6, on CPU, with the same seeds."""
    import ray

    suite = write_suite(tmp_path, SUITE)
    in_order = metrics(tmp_path / "in order", suite)
    on_cluster = metrics(tmp_path / "on ray", suite, "--ray", cluster)

    assert len([node for node in ray.nodes() if node["Alive"]]) == 2
    assert list(on_cluster) == list(in_order) == ["head-s3", "tfidf-s3"]
    for name, expected in in_order.items():
        assert on_cluster[name]["validation"] == pytest.approx(expected["validation"], abs=1e-6)
        for metric, estimate in expected["test"].items():
            assert on_cluster[name]["test"][metric] == pytest.approx(estimate, abs=1e-6)
    assert (tmp_path / "on ray" / "tiny" / "head-s3.predictions.json.gz").is_file()


def test_without_ray_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackage, match=r'pip install "peftlab\[ray\]"'):
        on_ray("auto", threads=1)
