"""What a Prometheus needs to scrape a gaitfleet on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

_CONFIGURATION = """\
# Written by `gaitfleet up`; `prometheus --config.file` takes it as it is. The targets are read again when they change.
global: {{scrape_interval: 5s, evaluation_interval: 5s}}
scrape_configs:
  - job_name: gaitfleet
    file_sd_configs: [{{files: [{targets}]}}]
"""


def write_scrape_configuration(directory: Path, ports: Mapping[str, int]) -> Path:
    """A configuration for Prometheus, and the list of targets beside it.

    Parameters
    ----------
    directory
        Where both files go.
    ports
        Loopback ports by the name of the process, which becomes the label `pod`; the label `namespace` is `local`.
    """
    groups = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": "local", "pod": name}}
        for name, port in ports.items()
    ]
    targets = (directory / "prometheus-targets.json").resolve()
    targets.write_text(json.dumps(groups, indent=2) + "\n", encoding="utf-8")
    configuration = directory / "prometheus.yml"
    configuration.write_text(_CONFIGURATION.format(targets=json.dumps(str(targets))), encoding="utf-8")
    return configuration
