"""Writes the dashboards that the chart ships: `python -m deploy.dashboards`, or `make dashboards`."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.dashboards.overview import COST_DASHBOARD, OVERVIEW
from deploy.dashboards.panels import build
from deploy.dashboards.service import REPLAY_API, STORAGE
from deploy.dashboards.workers import ROLLOUT, TRAINER

DIRECTORY = Path(__file__).parents[1] / "helm" / "gaitfleet" / "dashboards"
DASHBOARDS = (OVERVIEW, ROLLOUT, REPLAY_API, STORAGE, TRAINER, COST_DASHBOARD)


def texts() -> dict[str, str]:
    """File name and text of every dashboard."""
    return {f"{one.name}.json": json.dumps(build(one), indent=1, ensure_ascii=False) + "\n" for one in DASHBOARDS}


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for name, text in texts().items():
        (DIRECTORY / name).write_text(text, encoding="utf-8")
