"""Numbers that are not settings, each with its unit and its reason."""

DATABASE_SECONDS = 9.0
"""Longest time in s that a request waits for MongoDB before it is answered 503. Above the driver's own limits, below
the client's read timeout."""

RETRY_AFTER_SECONDS = 2
"""Retry-After in s of a 503: a replica set elects a new primary in about that time."""

READINESS_SECONDS = 4.0
"""Longest time in s that a readiness probe waits for database and store; the chart's probe gives up after 5."""

BODY_SECONDS = 30.0
"""Time in s that a body of megabytes has to arrive, and a second more for every `BODY_BYTES_PER_SECOND`: until then it
holds a place that others wait for, and a client that lost its network never ends it."""

BODY_BYTES_PER_SECOND = 1 << 20
"""See `BODY_SECONDS`."""

STORE_SECONDS = 100.0
"""Longest time in s that an operation of the checkpoint store may take, and a second more for every
`BODY_BYTES_PER_SECOND` of an object. The S3 client tries three times and reads for 30 s each time, and has no limit for
a server that takes the connection and never says that a body may come (``100 Continue``)."""

WATCH_SECONDS = 1.0
"""Interval in s at which an open run looks at its document: heads, limits and counters that another replica has
moved."""

FLUSH_SECONDS = 0.5
"""Interval in s at which sampled transitions are written to the run's document; a crash loses at most this much."""

FOLLOW_SECONDS = 0.25
"""Interval in s at which an open run looks for episodes that other replicas have stored."""

FOLLOW_OVERLAP_SECONDS = 2.0
"""How far back in s it looks each time. Every key in that time is read, so its cost grows with it."""

LATE_INTERVAL_SECONDS = 5.0
"""Interval in s at which it looks further back, for inserts that took long."""

LATE_OVERLAP_SECONDS = 30.0
"""How far back in s that is: an insert may take as long as the database limit, and times are known to some ms."""

BEAT_SECONDS = 1.0
"""Interval in s at which a replica with an open run says that it lives."""

REPLICA_SECONDS = 40.0
"""Time in s after which one that was not heard of has died: all that it had on its way is there or never comes."""

CLOCK_SECONDS = 1.0
"""Interval in s at which the database is asked for its time, and up to when a majority has what was written."""

WORKER_EXPIRY_SECONDS = 30.0
"""A worker that has not reported for this many s has left."""

REJECTION_EVENTS_PER_MINUTE = 5
"""Events kept for each reason and minute; the rest is only counted, so that a broken worker cannot flood the
history."""

RATE_WINDOW_SECONDS = 60.0
"""Window in s of the rates in the status."""

RECENT_EPISODES = 20
"""Episodes behind the returns of the status."""

TELL_INTERVAL_SECONDS = 1.0
"""Interval in s at which an event is told again that the database did not keep."""

TELL_SECONDS = 600.0
"""Time in s after which that is given up."""

FIRST_BODY_SECONDS = 5.0
"""Time in s that a policy is waited for which is published and was not read from the checkpoint store yet, as after a
start; whoever asks then would be told to come back for what takes milliseconds."""

MAX_POLICY_WAIT_SECONDS = 60.0
"""Longest long poll in s."""

ORPHAN_SECONDS = 120.0
"""An object without a record is deleted when it was seen without one for this long in s: its record follows the head,
and a database that is slow may take its whole limit for either."""

MAX_REMAINING = 127
"""Decisions until the end of an episode are held in seven bits; n-step returns need at most 32."""

MAX_PRIORITY = 1e30
"""Largest priority of a transition: the sum over all of them must stay finite."""

LOAD_CHUNK_EPISODES = 16
"""Episodes fetched at once while the cache is filled: some megabytes, to hide the round trip."""

MAX_WORKERS_PER_RUN = 10_000
"""Workers remembered for a run; more than any cluster has, less than fills the memory."""
