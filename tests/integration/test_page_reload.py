"""A pager that gets another address while it runs: what waited goes there, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from streamad.testing.pager_server import SECRET, PagerServer
from streamad.testing.processes import free_ports
from tests.integration.test_page_kill import Paging, lives, until
from tests.integration.test_serve import get
from tests.unit.jobs.test_config_watch import Folder

REFUSED = 'streamad_config_last_reload_successful{pipeline="%s"} 0.0'


def text_of(job: Paging, **pager: Any) -> str:
    tree = {**job.tree, "pagers": [{**job.tree["pagers"][0], **pager}]}
    return yaml.safe_dump(tree)


def sent(server: PagerServer) -> list[str]:
    """Return the incidents that a receiver has heard of, in order, each once."""
    return list(dict.fromkeys(one.body["data"]["id"] for one in server.taken if one.body))


@contextmanager
def running(kafka: Any, file: Path, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the pagers of a file; yield the process, and the port of its metrics."""
    (port,) = free_ports(1)
    environment = os.environ | {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "STREAMAD_MEMBER": "m",
        "STREAMAD_HOST": "127.0.0.1",
    }
    command = [sys.executable, "-m", "jobs.cli", "run", "--alerting", str(file)]
    command += ["--role", "page", "--health-port", str(port)]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, env=environment, stderr=stderr)
    try:
        yield process, port
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()


def test_pages_that_wait_go_to_the_new_address(kafka, tmp_path: Path):
    with PagerServer() as old, PagerServer() as new:
        job = Paging(kafka.bootstrap, old, ("webhook",))
        secret, log = tmp_path / "secret", tmp_path / "log"
        (tmp_path / "etc").mkdir()
        folder = Folder(tmp_path / "etc")
        folder.put(text_of(job))
        with running(kafka, folder.file, log) as (process, port):
            first, *rest = lives(4)
            until(lambda: job.put(first[0]) or old.webhooks, "a page", 120)
            old.fail("500")
            for life in rest[:2]:
                job.put(life[0])
            # A secret that is not there: the settings of before hold, and the metric shows it.
            moved = {"url": f"{new.url}/hook", "secret": None, "secret_file": str(secret)}
            folder.put(text_of(job, **moved))
            refused = REFUSED % job.name
            until(lambda: refused in get(port, "/metrics")[1], "the refusal")
            assert "secret_file cannot be read" in log.read_text()
            assert sent(new) == []
            secret.write_text(SECRET)
            until(lambda: len(sent(new)) >= 2, "pages at the new address", 90)
            until(lambda: refused not in get(port, "/metrics")[1], "the metric")
            assert process.poll() is None
            job.put(rest[2][0])
            wanted = [life[0].id for life in rest]
            until(lambda: set(wanted) <= set(sent(new)), "the next page")
            assert [name for name in sent(new) if name in wanted] == wanted
        assert not set(wanted) & set(sent(old)), "each went to one of them"
        assert new.problems == []
        assert job.letters() == []
