"""What of the test cluster needs no JVM: its configuration, and what it says when it cannot run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from streamad.testing.flink import ClusterError, FlinkCluster, cluster, why_no_cluster
from streamad.testing.flink.command import main
from streamad.testing.flink.options import cluster_options, config_text
from streamad.testing.flink.processes import running_of

SHIPPED = {"env": {"java": {"opts": {"all": "--add-opens=java.base/java.lang=ALL-UNNAMED"}}}}


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that passes for PyFlink, on a machine that seems to have Java."""
    folder = tmp_path / "pyflink"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "jobmanager.sh").touch()
    (folder / "conf").mkdir()
    (folder / "conf" / "config.yaml").write_text(yaml.safe_dump(SHIPPED))
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/java")
    monkeypatch.setattr(cluster, "distribution", lambda: folder)
    return folder


def options(root: Path) -> dict[str, str]:
    return cluster_options(root=root, rest_port=1, rpc_port=2, blob_port=3, slots=4)


def test_everything_is_bound_to_loopback_on_the_ports_that_were_chosen(tmp_path: Path):
    made = options(tmp_path)
    hosts = [name for name in made if name.endswith((".address", ".host", "-host", "-address"))]
    assert len(hosts) == 6
    assert {made[name] for name in hosts} == {"127.0.0.1"}
    assert made["rest.port"] == made["rest.bind-port"] == "1"
    assert made["jobmanager.rpc.port"] == "2"
    assert made["blob.server.port"] == "3"
    assert made["taskmanager.numberOfTaskSlots"] == "4"


def test_workers_run_this_python_and_all_files_lie_under_the_root(tmp_path: Path):
    made = options(tmp_path)
    assert made["python.executable"] == made["python.client.executable"] == sys.executable
    assert made["execution.checkpointing.dir"] == f"file://{tmp_path}/checkpoints"
    assert made["io.tmp.dirs"].startswith(str(tmp_path))


def test_the_config_keeps_the_flags_flink_ships_with_and_adds_ours_on_the_same_line():
    text = config_text(SHIPPED, {"env.java.opts.all": "-Xshare:auto", "rest.port": "8081"})
    assert yaml.safe_load(text) == {
        "env.java.opts.all": "--add-opens=java.base/java.lang=ALL-UNNAMED -Xshare:auto",
        "rest.port": "8081",
    }
    assert len(text.splitlines()) == 2


def test_flags_as_many_as_flink_ships_stay_on_one_line():
    many = " ".join(f"--add-opens=java.base/java.p{n}=ALL-UNNAMED" for n in range(60))
    text = config_text({"env": {"java": {"opts": {"all": many}}}}, {})
    assert text == f"env.java.opts.all: {many}\n"


def test_a_distribution_without_flags_is_no_obstacle():
    assert yaml.safe_load(config_text({}, {})) == {"env.java.opts.all": ""}


def test_options_have_the_last_word(distribution: Path, tmp_path: Path):
    cluster = FlinkCluster(root=tmp_path / "root", options={"heartbeat.interval": "500"})
    written = yaml.safe_load((cluster.conf_dir / "config.yaml").read_text())
    assert written["heartbeat.interval"] == "500"
    assert written["heartbeat.timeout"] == "20000"


def test_what_the_caller_has_set_for_another_flink_does_not_reach_the_processes(
    distribution: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("FLINK_HOME", "FLINK_LIB_DIR", "_FLINK_HOME_DETERMINED", "JVM_ARGS"):
        monkeypatch.setenv(name, "/elsewhere")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    cluster = FlinkCluster(root=tmp_path / "root")
    environment = cluster._environment()
    assert "/elsewhere" not in environment.values()
    assert environment["LC_ALL"] == "C.UTF-8"
    assert environment["FLINK_CONF_DIR"] == str(cluster.conf_dir)


def test_a_cluster_that_was_never_started_can_be_asked_and_closed(distribution: Path):
    cluster = FlinkCluster()
    assert cluster.job_manager_pid is None
    assert cluster.task_manager_pids == {}
    assert cluster.log_tail() == "(no log)"
    cluster.kill_job_manager()
    with pytest.raises(ClusterError, match="does not answer"):
        cluster.overview()
    with pytest.raises(ClusterError, match="no job manager runs"):
        cluster.wait_for_slots(2)
    with pytest.raises(ClusterError, match=r"no task manager 0 .*running: none"):
        cluster.kill_task_manager()
    assert cluster.root.exists()
    cluster.close()
    cluster.close()
    assert not cluster.root.exists()


def test_missing_java_and_missing_pyflink_are_told_apart(
    distribution: Path, monkeypatch: pytest.MonkeyPatch
):
    assert why_no_cluster() is None
    monkeypatch.setattr(cluster, "distribution", lambda: None)
    assert "make setup-flink" in (why_no_cluster() or "")
    with pytest.raises(ClusterError, match="PyFlink"):
        FlinkCluster()
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert "install a Java runtime" in (why_no_cluster() or "")
    with pytest.raises(ClusterError, match="Java"):
        FlinkCluster()


def test_an_environment_without_pyflink_has_no_distribution(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert cluster.distribution() is None


def test_importing_it_does_not_import_pyflink():
    script = (
        "import sys, streamad.testing.flink as cluster\n"
        "cluster.why_no_cluster()\n"
        "sys.exit('pyflink' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_up_on_a_taken_port_says_which_line_to_type(
    distribution: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code = main(["up", "--port", port, "--dir", str(tmp_path / "up")])
    assert code == os.EX_UNAVAILABLE
    assert "FLINK_PORT=" in capsys.readouterr().err


def test_down_without_a_cluster_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["down", "--dir", str(tmp_path)]) == 0
    assert "no cluster is up" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "1\n", "not a number\n"])
def test_a_pid_file_of_the_past_is_no_cluster(tmp_path: Path, content: str):
    (tmp_path / "cluster.pid").write_text(content)
    assert running_of(tmp_path / "cluster.pid") == []
