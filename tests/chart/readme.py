"""The chart's README: its values from the comments of values.yaml, its pipelines by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.chart.schema import CHART

MADE = "<!-- Made by `make docs`. Do not edit: change values.yaml, or tests/chart/readme.py. -->"
_ABOUT = re.compile(r"^ *# -- (.*)$")
_KEY = re.compile(r"^( *)([A-Za-z]+):(.*)$")


def rows() -> Iterator[tuple[str, str, str]]:
    """Yield path, default and description of each value that has a comment `# --`."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    above: list[tuple[int, str]] = []
    about = ""
    for line in text.splitlines():
        if found := _ABOUT.match(line):
            about = found[1]
        elif found := _KEY.match(line):
            depth = len(found[1])
            above = [one for one in above if one[0] < depth] + [(depth, found[2])]
            path = [name for _, name in above]
            if about:
                yield ".".join(path), _shown(_at(values, path)), about
            about = ""


def _at(values: Any, path: list[str]) -> Any:
    for name in path:
        values = values[name]
    return values


def _shown(value: Any) -> str:
    return f"`{json.dumps(value)}`".replace("|", "\\|")


def readme() -> str:
    """Return README.md of the chart."""
    lines = [f"| `{path}` | {default} | {about} |" for path, default, about in rows()]
    table = "\n".join(["| value | default | what |", "|---|---|---|", *lines])
    return f"{MADE}\n\n{_TEXT.strip()}\n\n## Values\n\n{table}\n"


_TEXT = """
# The chart streamad

Runs pipelines of streamad in Kubernetes: plain jobs as StatefulSets, jobs on Flink as
`FlinkDeployment`, and alert stages that page. Kubernetes 1.27 or newer, Helm 3.

```sh
helm install streamad helm/streamad -f my-values.yaml
helm test streamad --logs
```

```yaml
# my-values.yaml
kafka: {bootstrapServers: "kafka:9092"}
pipelines:
  hosts:
    kind: plain
    config:                        # a pipeline file, docs/pipeline.md
      name: hosts
      input: {topics: metrics}
    roles:
      detect: {replicas: 3}
```

A key that is not known is refused before anything is rendered, with the nearest right key. Examples of all
kinds are in `ci/`. No image is published: build and push yours first (`images/`, docs/operations.md), and name it in
`image.registry` and `image.repository`.

## Pipelines

`pipelines` is a map: a name of your choice (part of the objects' names) to a job.

| kind | makes | own settings |
|---|---|---|
| `plain` | a StatefulSet each for `detect` and `alert` | `roles.detect`, `roles.alert`, `artifact`, `snapshots` |
| `flink` | a FlinkDeployment, and a StatefulSet for `alert` (and `rekey`, with `input.repartition`) | `flink`, `roles`, `artifact` |
| `alerting` | a StatefulSet for `alert`, and one for `page` if the file has pagers | `roles.alert`, `roles.page` |

| setting of a job | what |
|---|---|
| `kind` | `plain`, `flink` or `alerting` |
| `enabled` | `false` leaves it out |
| `config` | the file itself: a pipeline ([docs/pipeline.md](../../docs/pipeline.md)), or an alerting file; checked by the schema |
| `existingConfigMap.name`, `.key` | in place of `config`: a ConfigMap that exists |
| `hotReload` | `plain`, `alerting`: `true` replaces pods only where a change of `config` needs it; default `false` |
| `partitions` | of the input; needed for autoscaling and for topics by Strimzi |
| `pod` | settings as in `defaults`, for this job |
| `roles.<role>.replicas` | members; surplus ones wait as spares |
| `roles.<role>.enabled` | `alert`, `page`: `false` where another job does it |
| `roles.<role>.pod` | settings as in `defaults`, for this role |
| `roles.detect.autoscaling` | KEDA: `enabled`, `minReplicas`, `maxReplicas`, `lagPerReplica` (10000), `pollingInterval`, `scaleUpAfterSeconds` (60), `scaleDownAfterSeconds` (1800); never more members than `partitions` |
| `artifact` | mounted at `/var/lib/streamad/artifact`: `claimName`, `image` (an image volume) or `configMap`, and `subPath`. For an object store write its URL into `detector.artifact` |
| `snapshots` | a volume in place of the state topic, mounted at `/var/lib/streamad/snapshots`: `existingClaim`, or `size`, `storageClassName`, `accessMode` |
| `flink.stateUrl` | where checkpoints, savepoints and Flink's high availability keep their data; every pod must reach it |
| `flink.jobManager.resource`, `flink.taskManager.resource`, `.slots` | `cpu` and `memory` as the operator has them |
| `flink.upgradeMode` | `savepoint` (default), `last-state` or `stateless` |
| `flink.configuration` | any option of Flink; wins over the chart's |
| `flink.state`, `.restartNonce`, `.savepointRedeployNonce`, `.initialSavepointPath`, `.version`, `.jarUri` | as the operator has them |

A change of `config` replaces the pods, because its checksum is an annotation. That of a ConfigMap which exists is
read from the cluster at `helm upgrade`; after a change, run it. With `hotReload: true` the checksum leaves out what a
running job takes over (links, addresses of pagers, intervals: those marked ‡ in [docs/pipeline.md](../../docs/pipeline.md)
and in [docs/operations.md](../../docs/operations.md#settings-without-a-restart)): such a change replaces no pod, and
holds once the kubelet has brought the ConfigMap to it, usually within a minute. Any other change replaces the pods as before.

The name in the file, not the release, is the pipeline's identity on the cluster: its topics, consumer groups and state.
Two releases with one such name are members of one pipeline.

## Secrets

The chart holds none. `kafka.sasl.existingSecret` and `kafka.tls` name Secrets; those of pagers are environment variables
(`extraEnvFrom`, as `${NAME}` in the file) or files (`secretFiles`, as `token_file`).

## What was tested, and what was not

Tests render all of `ci/`, check each object against the schemas of Kubernetes 1.27 and 1.33 and of the operators'
custom resources, judge pods by the restricted Pod Security Standard, load the rendered pipelines, and run the rendered
commands against a real Kafka. The chart was not installed in a cluster, and its images were not built, because the
project's machines have neither cluster nor container engine.

## Upgrading

A key that moved is refused with its new name. 0.1.0 is the first version.
"""
