"""A real Flink session cluster for tests, whose processes can be killed one by one.

A mini cluster inside the client's JVM cannot show what a lost task manager or a lost job manager
does to a running job; this runs the processes of a standalone cluster, from the distribution that
comes with PyFlink (``make setup-flink``), on free loopback ports::

    with FlinkCluster(slots=2) as cluster:
        submit_to(cluster.address)
        cluster.kill_task_manager()  # SIGKILL, as the kernel does when memory runs out
        cluster.add_task_manager()
        cluster.wait_for_slots(2)

``python -m streamad.testing.flink up`` starts one that stays (``make flink-up``). PyFlink
itself is not imported: all that is taken from it are scripts and jars.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import logging
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from streamad.errors import StreamadError
from streamad.testing.flink.options import cluster_options, config_text
from streamad.testing.flink.processes import (
    STOP_TIMEOUT_S,
    Jvm,
    flink_environment,
    kill_leftovers,
)
from streamad.testing.processes import free_ports, kill_with_me

logger = logging.getLogger(__name__)

_START_TIMEOUT_S = 180.0  # 14 s on two cores, most of it Flink's scripts; others may use them
_LOG_TAIL_LINES = 25
_LOOK_S = 0.3


class ClusterError(StreamadError):
    """The test cluster cannot be run or asked; the message says what is missing or what died."""


def why_no_cluster() -> str | None:
    """Say what a cluster lacks on this machine, or None where it can be started."""
    if shutil.which("java") is None:
        return "no `java` on the PATH; install a Java runtime (17 or later)"
    if distribution() is None:
        return "no PyFlink, which brings Flink's distribution; install it with `make setup-flink`"
    return None


class FlinkCluster:
    """A standalone session cluster on the loopback interface: a job manager and task managers.

    The ports and the folder are chosen once, so that a job manager which was killed comes back
    under the same address with the same configuration. It comes back without its jobs, unless
    `options` name a high-availability service: that is Flink's way, not this class's. All processes
    die with the one that started them, even if that is killed.

    Parameters
    ----------
    slots : int
        How many slots each task manager offers.
    task_managers : int
        How many task managers `start` sees to.
    root : Path, optional
        Where configuration, logs and checkpoints are kept; without it a temporary folder, deleted
        by `close`.
    rest_port : int
        The port of the REST interface and the web page; 0 takes a free one.
    options : Mapping[str, str], optional
        Flink's options that replace or add to those of `cluster_options`.
    """

    def __init__(
        self,
        *,
        slots: int = 2,
        task_managers: int = 1,
        root: Path | None = None,
        rest_port: int = 0,
        options: Mapping[str, str] | None = None,
    ) -> None:
        missing = why_no_cluster()
        found = distribution()
        if missing or found is None:
            raise ClusterError(missing or "no PyFlink")
        self.slots = slots
        self.task_managers = task_managers
        self._temporary = root is None
        self.root = (root or Path(tempfile.mkdtemp(prefix="streamad-flink-"))).resolve()
        self._distribution = found
        rpc, blob, free = free_ports(3)
        self.rest_port = rest_port or free
        self._options = cluster_options(
            root=self.root, rest_port=self.rest_port, rpc_port=rpc, blob_port=blob, slots=slots
        ) | dict(options or {})
        self._survive = self._supervised = False
        self._job_manager: Jvm | None = None
        self._task_managers: dict[int, Jvm] = {}
        self._added = 0
        self._write_conf()

    @property
    def address(self) -> str:
        """The address clients submit jobs to, ``host:port``."""
        return f"127.0.0.1:{self.rest_port}"

    @property
    def rest(self) -> str:
        """The root of the REST interface; in a browser it is the web page."""
        return f"http://{self.address}"

    @property
    def conf_dir(self) -> Path:
        """The folder for a client's ``FLINK_CONF_DIR``."""
        return self.root / "conf"

    @property
    def log_dir(self) -> Path:
        """The folder with everything the processes said, over all their lives."""
        return self.root / "log"

    @property
    def job_manager_pid(self) -> int | None:
        """The process id while the job manager runs, else None."""
        return self._job_manager.pid if self._job_manager else None

    @property
    def task_manager_pids(self) -> dict[int, int]:
        """The process ids of the task managers that run, by index."""
        pids = {index: jvm.pid for index, jvm in list(self._task_managers.items())}
        return {index: pid for index, pid in pids.items() if pid is not None}

    def start(self, *, timeout_s: float = _START_TIMEOUT_S, survive: bool = False) -> Self:
        """Start what does not run, and wait until every task manager offers its slots.

        A cluster that a test has thinned out is whole again after it; one that runs is left alone.

        Parameters
        ----------
        timeout_s : float
            How long to wait before giving up.
        survive : bool
            Let the cluster go on when this process ends.

        Raises
        ------
        ClusterError
            A process died or did not answer in time; the message ends with the last log lines.
        """
        self._survive = survive
        try:
            for index in self._task_managers.keys() - self.task_manager_pids.keys():
                self._task_managers.pop(index).release()
            self._launch_job_manager()
            while len(self._task_managers) < self.task_managers:
                self.add_task_manager()
            self._await(self._all_registered, "the cluster is not complete", timeout_s)
        except BaseException:
            self.stop(timeout_s=0)
            raise
        return self

    def stop(self, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Shut everything down in order; what hangs is killed. Folder and ports stay.

        Parameters
        ----------
        timeout_s : float
            How long the processes have for an orderly end; their Python workers are killed after.
        """
        jvms = [*self._task_managers.values(), *([self._job_manager] if self._job_manager else [])]
        self._task_managers, self._job_manager, self._added = {}, None, 0
        processes = [jvm.release() for jvm in jvms]
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + timeout_s
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        kill_leftovers(self.root)  # those of task managers that were killed before, too

    def close(self) -> None:
        """Stop the cluster and delete its folder if that was a temporary one."""
        self.stop()
        if self._temporary:
            shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def add_task_manager(self) -> int:
        """Start one more task manager and return its index; `wait_for_slots` waits for it.

        The index is never given to another one. Flink knows the task manager as ``tm-<index>``: so
        it is called in what the REST interface says of where a task runs.
        """
        index, self._added = self._added, self._added + 1
        name = f"tm-{index}"
        self._task_managers[index] = self._jvm(
            name, "taskmanager.sh", "-D", f"taskmanager.resource-id={name}"
        )
        return index

    def kill_task_manager(self, index: int = 0) -> None:
        """Kill a task manager's JVM with SIGKILL, as a crash does.

        Its Python workers are not touched: they have to notice for themselves, as after a crash.

        Parameters
        ----------
        index : int
            What `add_task_manager` returned; those of `start` are counted from 0.
        """
        if index not in self.task_manager_pids:
            running = ", ".join(map(str, self.task_manager_pids)) or "none"
            msg = f"no task manager {index} runs, so it cannot be killed (running: {running})"
            raise ClusterError(msg)
        self._task_managers.pop(index).kill()

    @contextlib.contextmanager
    def supervised(self) -> Iterator[None]:
        """Start a task manager for each that ends, as Kubernetes does, until the context is left.

        What ended is told in the log. Meanwhile `wait_for_slots` does not mind that something did.
        """
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_LOOK_S):
                for index in self._task_managers.keys() - self.task_manager_pids.keys():
                    ended = self._task_managers.pop(index)
                    logger.warning("%s", self._how_it_ended(ended))
                    ended.release()
                while len(self._task_managers) < self.task_managers:
                    self.add_task_manager()

        watcher = threading.Thread(target=watch, name="flink-supervisor")
        self._supervised = True
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
            self._supervised = False

    def kill_job_manager(self) -> None:
        """Kill the job manager with SIGKILL, as a crash does. Folder and ports stay.

        Task managers do not ask after it, they wait to be asked: their tasks run on until
        ``heartbeat.timeout`` has passed, and only then do they register with its successor.
        """
        job_manager, self._job_manager = self._job_manager, None
        if job_manager is not None:
            job_manager.kill()

    def start_job_manager(self, *, timeout_s: float = _START_TIMEOUT_S) -> None:
        """Start the job manager under its address and wait until it answers; not if it runs.

        Parameters
        ----------
        timeout_s : float
            How long to wait for the first answer before giving up.
        """
        self._launch_job_manager()
        self._await(
            lambda: self._ask("/overview") is not None, "the job manager is silent", timeout_s
        )

    def get(self, path: str) -> Any:
        """Return what the REST interface says, parsed.

        Parameters
        ----------
        path : str
            The path with its leading slash: ``/jobs/overview``.

        Raises
        ------
        ClusterError
            Nothing answers, or something else than 200.
        """
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=30)
        ) as connection:
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException) as error:
                msg = f"{self.rest}{path} does not answer: {error!r}"
                raise ClusterError(msg) from error
        if response.status != http.client.OK:
            said = body.decode(errors="replace")
            msg = f"{self.rest}{path} answers {response.status}: {said}"
            raise ClusterError(msg)
        return json.loads(body)

    def overview(self) -> dict[str, Any]:
        """Return the cluster's own summary: ``taskmanagers``, ``slots-total``, ``jobs-running``."""
        answer: dict[str, Any] = self.get("/overview")
        return answer

    def wait_for_slots(self, n: int, *, timeout_s: float = 60.0) -> None:
        """Wait until the job manager counts exactly ``n`` slots, taken or free.

        That is how a loss shows, too: a killed task manager's slots count until it is missed.

        Parameters
        ----------
        n : int
            The number of slots of the whole cluster.
        timeout_s : float
            How long to wait before giving up.
        """

        def offered() -> bool:
            overview = self._ask("/overview")
            return overview is not None and overview["slots-total"] == n

        if self.job_manager_pid is None:
            msg = "no job manager runs that could count slots; start it with `start_job_manager`"
            raise ClusterError(msg)
        self._await(offered, f"the cluster does not have {n} slots", timeout_s)

    def log_tail(self) -> str:
        """Return the last lines of every process, those that are dead included."""
        logs = sorted(self.log_dir.glob("console-*.log"))
        tails = [
            [f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]]
            for log in logs
        ]
        return "\n".join(line for tail in tails for line in tail) or "(no log)"

    def _how_it_ended(self, jvm: Jvm) -> str:
        """Return the exit code of a process, and the last errors it logged."""
        lines = (self.log_dir / f"console-{jvm.name}.log").read_text(errors="replace").splitlines()
        errors = [number for number, line in enumerate(lines) if " ERROR " in line]
        said = [line for number in errors[-3:] for line in lines[number : number + 2]]
        return "\n".join([f"{jvm.name} ended with {jvm.process.poll()}", *said])

    def _launch_job_manager(self) -> None:
        if self.job_manager_pid is None:
            if self._job_manager is not None:
                self._job_manager.release()
            self._job_manager = self._jvm("jm", "jobmanager.sh")

    def _write_conf(self) -> None:
        for folder in (self.conf_dir, self.log_dir, self.root / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        shipped = self._distribution / "conf"
        for file in [*shipped.glob("log4j*.properties"), *shipped.glob("logback*.xml")]:
            shutil.copyfile(file, self.conf_dir / file.name)
        defaults = yaml.safe_load((shipped / "config.yaml").read_text())
        (self.conf_dir / "config.yaml").write_text(config_text(defaults, self._options))

    def _jvm(self, name: str, script: str, *arguments: str) -> Jvm:
        with (self.log_dir / f"console-{name}.log").open("ab") as log:
            # The scripts end in `exec java`: the process id is the JVM's.
            process = subprocess.Popen(  # noqa: S603 - our own arguments
                ["bash", str(self._distribution / "bin" / script), "start-foreground", *arguments],  # noqa: S607
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.root,
                env=self._environment(),
                start_new_session=True,  # Ctrl-C is for the tests; they then stop it in order
            )
        # The group, because a task manager's Python workers belong to it.
        watchdog = None if self._survive else kill_with_me(process.pid, group=True)
        return Jvm(name, process, watchdog)

    def _environment(self) -> dict[str, str]:
        return flink_environment(self.root, conf_dir=self.conf_dir, log_dir=self.log_dir)

    def _await(self, condition: Callable[[], bool], failure: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            needed = [] if self._supervised else list(self._task_managers.values())
            for jvm in [self._job_manager, *needed]:
                if jvm is not None and jvm.pid is None:
                    msg = f"{self._how_it_ended(jvm)}\nthe logs end:\n{self.log_tail()}"
                    raise ClusterError(msg)
            if time.monotonic() > deadline:
                msg = f"{failure} after {timeout_s:g} s; the logs end:\n"
                raise ClusterError(msg + self.log_tail())
            time.sleep(0.1)

    def _all_registered(self) -> bool:
        # A task manager is known a moment before its report of slots arrives: it has 0 until then.
        answer = self._ask("/taskmanagers")
        known = {one["id"]: one["slotsNumber"] for one in answer["taskmanagers"]} if answer else {}
        named = {jvm.name: self.slots for jvm in self._task_managers.values()}
        return answer is not None and known == named

    def _ask(self, path: str) -> Any:
        """Return what the REST interface says, or None while it does not."""
        try:
            return self.get(path)
        except ClusterError:
            return None


def distribution() -> Path | None:
    """Return the folder of PyFlink, which holds a whole distribution, without importing it."""
    spec = importlib.util.find_spec("pyflink")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / "bin" / "jobmanager.sh").is_file():
            return Path(folder)
    return None
