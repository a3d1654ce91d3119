"""What must not pass for walking, and what does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gaitfleet.quality.finding import Finding
from gaitfleet.quality.rules import DIVE, STATUE

STATUE_STEPS = 200
"""Steps (2 s) from which standing is a behaviour and no longer a slow fall."""

DIVE_STEPS = 200
DIVE_CONTACTS = 4
"""An episode that falls within these steps with fewer alternating contacts has not walked."""

WALKING_SPEED = 0.5
"""Slowest mean speed in m/s that is called walking: the slow walk of an amputee."""

WALKING_CONTACTS = 4
"""Fewest alternating contacts: two strides."""

LONGEST_STEP_M = 1.5
"""Longest distance in m for one contact: a sprinter's steps are longer, a hop or a slide is."""


def behaviours(measures: Mapping[str, Any], steps: int, ending_reason: str) -> Iterator[Finding]:
    """Statue and dive, from the measures of an episode."""
    speed, contacts, distance = (measures[name] for name in ("mean_speed_m_per_s", "foot_contacts", "distance_m"))
    if steps >= STATUE_STEPS and abs(speed) < STATUE.limit:
        yield STATUE.broken(f"{distance:.2f} m in {steps} steps, {contacts} contacts", speed)
    if ending_reason == "fall" and steps <= DIVE_STEPS and contacts < DIVE_CONTACTS and speed > DIVE.limit:
        yield DIVE.broken(f"{distance:.2f} m in {steps} steps, {contacts} contacts, then a fall", speed)


def walked(measures: Mapping[str, Any], ending_reason: str) -> bool:
    """Whether an episode is walking: on its feet to the time limit, at a walking pace, on alternating feet."""
    speed, contacts, distance = (measures[name] for name in ("mean_speed_m_per_s", "foot_contacts", "distance_m"))
    fewest = max(WALKING_CONTACTS, distance / LONGEST_STEP_M)
    return bool(ending_reason == "time_limit" and speed >= WALKING_SPEED and contacts >= fewest)
