"""Every rule with its threshold and the reason for it.

The measured values are of 184 OpenSim episodes: random, two-level, held and zero excitations and policies in training,
all four models, two integration methods, accuracies from 5e-5 to 5e-3, fall heights from 0 to 0.7 m.
"""

from __future__ import annotations

from gaitfleet.quality.finding import Rule

IMPOSSIBLE_HEIGHT = Rule(
    "impossible_height",
    "fault",
    "A body or the mass centre is lower or higher than the skeleton allows.",
    0.1,
    "m",
    "An episode ends at the first row below the fall height, and one step at 10 m/s is 0.1 m; below that a body can "
    "hang by its distance from the pelvis, and a foot sinks into the ground by less than 0.25 m.",
)
BEYOND_LIMITS = Rule(
    "beyond_limits",
    "fault",
    "A value is outside what its column can physically be.",
    0.0,
    "values",
    "`limits.py` has them; activations aside, good data went two thirds of the way to one at most.",
)
POSITION_JUMP = Rule(
    "position_jump",
    "fault",
    "A body's position changes otherwise than its velocity says.",
    0.03,
    "m",
    "Between two rows a position changes by the mean of both velocities times 0.01 s; a foot that strikes the ground "
    "deviates by 0.008 m at most.",
)
ANGLE_JUMP = Rule(
    "angle_jump",
    "fault",
    "A joint's angle changes otherwise than its velocity says.",
    0.3,
    "rad",
    "As for positions; an ankle deviates by 0.074 rad when its foot strikes the ground.",
)
PELVIS_DISAGREES = Rule(
    "pelvis_disagrees",
    "fault",
    "The pelvis is elsewhere as a body than by the coordinates of its joint: rows were changed after the simulator.",
    1e-4,
    "m",
    "Both are the same number in OpenSim; they agreed to the last bit in every row measured.",
)
TIME_STANDS_STILL = Rule(
    "time_stands_still",
    "fault",
    "A row is the same as the one before, to the last bit.",
    0.0,
    "rows",
    "412 numbers of a body in motion never repeat. Gymnasium environments can rest: there only an episode without any "
    "movement counts.",
)
DUPLICATED_ROWS = Rule(
    "duplicated_rows",
    "fault",
    "A row is the same as an earlier one that is not its neighbour, to the last bit.",
    0.0,
    "rows",
    "As above; checked for the walker only.",
)
CONSTANT_COLUMNS = Rule(
    "constant_columns",
    "fault",
    "A column that moves in every simulation keeps one value from the first row to the last.",
    0.0,
    "columns",
    "Positions, velocities and accelerations of everything that the model does not lock, and the muscles' fibres; "
    "contacts, limits and activations may rest.",
)
FROZEN_ACTIONS = Rule(
    "frozen_actions",
    "fault",
    "The actions hardly change although noise was asked for: the policy is saturated, or its noise is lost.",
    1e-3,
    "share of the range",
    "The largest standard deviation of any action value over at least 20 decisions; noise of 0.1 gives 0.05 and more.",
)
REPEATED_EPISODE = Rule(
    "repeated_episode",
    "fault",
    "Rows and actions equal those of another episode: under noise, or by another policy.",
    0.0,
    "episodes",
    "Two draws of noise never agree to the last bit, and neither do two policies, unless nothing of them reaches the "
    "simulator. Episodes of fewer than 10 steps are not compared.",
)
STATUE = Rule(
    "statue",
    "behaviour",
    "It stays upright for long and goes nowhere.",
    0.25,
    "m/s",
    "Of the mean speed either way, over at least 200 steps; slow walking is 0.5 m/s. Random and held excitations fell "
    "within 190 steps; standing still to the end is worth 83 % of round 2's highest score.",
)
DIVE = Rule(
    "dive",
    "behaviour",
    "It falls forward quickly: a good speed, no steps.",
    0.5,
    "m/s",
    "Of the mean speed, in an episode that ends with a fall within 200 steps and fewer than 4 alternating contacts.",
)

RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        IMPOSSIBLE_HEIGHT,
        BEYOND_LIMITS,
        POSITION_JUMP,
        ANGLE_JUMP,
        PELVIS_DISAGREES,
        TIME_STANDS_STILL,
        DUPLICATED_ROWS,
        CONSTANT_COLUMNS,
        FROZEN_ACTIONS,
        REPEATED_EPISODE,
        STATUE,
        DIVE,
    )
}
"""All rules by name."""
