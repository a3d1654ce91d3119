"""Client of the replay API.

`ReplayClient` is synchronous and belongs to one thread; `clone` makes another for the next thread. Control calls go
through httpx; bodies of megabytes go through the standard library's http.client, which reads into a given buffer two
to three times faster (measured: 640 against 167 thousand transitions per second).
"""

from gaitfleet.client.base_url import usable_url
from gaitfleet.client.certificates import trusted_authorities
from gaitfleet.client.replay_client import PolicyAnswer, ReplayClient
from gaitfleet.client.retry import Backoff
from gaitfleet.client.token import read_token, usable_token

__all__ = [
    "Backoff",
    "PolicyAnswer",
    "ReplayClient",
    "read_token",
    "trusted_authorities",
    "usable_token",
    "usable_url",
]
