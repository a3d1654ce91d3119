"""Numbers that are not settings, each with its unit and its reason."""

DATABASE_SECONDS = 9.0
"""Longest time in s that a request waits for MongoDB before it is answered 503. Above the driver's own limits, below
the client's read timeout."""

RETRY_AFTER_SECONDS = 2
"""Retry-After in s of a 503: a replica set elects a new primary in about that time."""

BODY_SECONDS = 30.0
"""Time in s that a body of megabytes has to arrive, and a second more for every `BODY_BYTES_PER_SECOND`: until then it
holds a place that others wait for, and a client that lost its network never ends it."""

BODY_BYTES_PER_SECOND = 1 << 20
"""See `BODY_SECONDS`."""

WATCH_SECONDS = 1.0
"""Interval in s at which an open run looks at its document: heads, limits and counters that another replica has
moved."""

FLUSH_SECONDS = 0.5
"""Interval in s at which sampled transitions are written to the run's document; a crash loses at most this much."""

FOLLOW_OVERLAP_SECONDS = 30.0
"""How far in s the search for other replicas' episodes looks back every `FAR_LOOKS` times: an insert may take as long
as the database limit, and clocks differ."""

NEAR_OVERLAP_SECONDS = 3.0
"""How far in s it looks back the other times. Every look asks for the keys of all of its time, this replica's too: at a
hundred episodes a second, half a minute of them every second costs the database as much as storing them."""

FAR_LOOKS = 10
"""See `FOLLOW_OVERLAP_SECONDS`."""

WORKER_EXPIRY_SECONDS = 30.0
"""A worker that has not reported for this many s has left."""

REJECTION_EVENTS_PER_MINUTE = 5
"""Events kept for each reason and minute; the rest is only counted, so that a broken worker cannot flood the
history."""

RATE_WINDOW_SECONDS = 60.0
"""Window in s of the rates in the status."""

RECENT_EPISODES = 20
"""Episodes behind the returns of the status."""

MAX_POLICY_WAIT_SECONDS = 60.0
"""Longest long poll in s."""

ORPHAN_AGE_SECONDS = 3600.0
"""An object without a record is deleted when it is this old in s: a younger one may belong to a publication under
way."""

MAX_REMAINING = 127
"""Decisions until the end of an episode are held in seven bits; n-step returns need at most 32."""

MAX_PRIORITY = 1e30
"""Largest priority of a transition: the sum over all of them must stay finite."""

LOAD_CHUNK_EPISODES = 16
"""Episodes fetched at once while the cache is filled: some megabytes, to hide the round trip."""

MAX_WORKERS_PER_RUN = 10_000
"""Workers remembered for a run; more than any cluster has, less than fills the memory."""
