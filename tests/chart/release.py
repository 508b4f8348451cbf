"""What a released chart renders and no upgrade may change: ``python -m tests.chart.release``.

Run it when a version is released, and never otherwise: `released.json` then stands for what users
have in their clusters.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.chart.rendering import CI_VALUES, NAMES, Object, rendered

RELEASED = Path(__file__).with_name("released.json")

# What Kubernetes does not let an upgrade change; it would have to delete and make the object.
FIXED = {
    "StatefulSet": ("selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates"),
    "Service": ("clusterIP",),
    "PersistentVolumeClaim": ("accessModes", "storageClassName"),
    "FlinkDeployment": ("mode",),
    "RoleBinding": ("roleRef",),
}


def fixed(objects: list[Object]) -> dict[str, Any]:
    """Return the immutable fields of objects, by kind and name."""
    return {
        f"{one['kind']}/{one['metadata']['name']}": {
            name: one.get("spec", one).get(name) for name in FIXED[one["kind"]]
        }
        for one in objects
        if one["kind"] in FIXED
    }


if __name__ == "__main__":
    made = {name: fixed(rendered(path)) for name, path in zip(NAMES, CI_VALUES, strict=True)}
    RELEASED.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
