"""The newest policy, fetched in the background."""

from __future__ import annotations

import logging
import threading
import time

from gaitfleet.client import PolicyAnswer
from gaitfleet.errors import ApiError, CodecError, PolicyError
from gaitfleet.policy import NumpyPolicy
from gaitfleet.task.interface import TaskDescription
from rollout.connection import Connection, Patience
from rollout.schedule import Policy

logger = logging.getLogger(__name__)

LONG_POLL_SECONDS = 20.0
"""The API holds a request for a newer policy so long; below the 30 to 60 s after which proxies give up."""

QUICK_ANSWER_SECONDS = 1.0
"""An API that answers "nothing new" sooner does not hold requests, and is asked once in this time."""


class PolicySource:
    """Asks for newer policies on a thread of its own and keeps the newest that can be used.

    Parameters
    ----------
    connection
        Used by that thread only.
    task
        What the policy must fit.

    Attributes
    ----------
    mismatch
        Set when the trainer publishes policies of another task; the worker must not go on.
    """

    def __init__(self, connection: Connection, task: TaskDescription) -> None:
        self.mismatch: PolicyError | None = None
        self._connection = connection
        self._task = task
        self._newest: Policy | None = None
        self._unpublished = False
        self._forgotten = threading.Event()
        self._received_at = 0.0
        self._stop = threading.Event()
        self._patience = Patience(connection, self._stop)
        self._thread = threading.Thread(target=self._poll, name="policy-source", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more. A request that is under way ends with the process."""
        self._stop.set()

    def newest(self) -> Policy | None:
        """The newest policy; None before the first."""
        return self._newest

    def unpublished(self) -> bool:
        """Whether the API has said that there is no policy yet; that it cannot give one now is something else."""
        return self._unpublished

    def forget(self, version: int) -> None:
        """Take what the API has from now on, be it older or nothing: its newest policy is before this version.

        It has lost what came after, for example because its database was replaced by an older one.
        """
        newest = self._newest
        if newest is not None and version <= newest.version:
            logger.warning("the API does not know policy %d any more; asking for what it has", newest.version)
            self._unpublished, self._newest = False, None
            self._forgotten.set()

    def age_seconds(self) -> float:
        """Since the newest policy arrived; 0 before the first."""
        return time.monotonic() - self._received_at if self._newest is not None else 0.0

    def _poll(self) -> None:
        etag: str | None = None
        while not self._stop.is_set():
            if self._forgotten.is_set():
                self._forgotten.clear()
                etag = None
            asked = time.monotonic()
            known = self._newest is not None or self._unpublished
            try:
                answer = self._connection.client.get_policy(etag, wait_seconds=LONG_POLL_SECONDS if known else 0.0)
            except ApiError as error:
                logger.info("no policy: %s", error)
                self._patience.wait(error)
                continue
            except Exception:
                # the service plays on by the policy it has; a thread that is gone would never be noticed
                logger.exception("asking for a policy failed")
                self._patience.wait(ApiError("bug"))
                continue
            self._patience.reset()
            if answer is None and etag is None:
                self._unpublished = True
            # a replica of the API may not know of the newest yet, which another has given already
            if answer is not None and (self._newest is None or answer.version >= self._newest.version):
                etag = answer.etag
                self._take(answer)
            elif time.monotonic() - asked < QUICK_ANSWER_SECONDS:
                self._stop.wait(QUICK_ANSWER_SECONDS)

    def _take(self, answer: PolicyAnswer) -> None:
        try:
            check_fits(NumpyPolicy.from_bytes(answer.body), self._task)
        except PolicyMismatchError as error:
            self.mismatch = error
            logger.error("policy %d is not for this task: %s", answer.version, error)
        except (CodecError, PolicyError) as error:
            logger.error("policy %d cannot be used, the one before stays: %s", answer.version, error)
        else:
            self._received_at = time.monotonic()
            self._newest = Policy(answer.version, answer.body)
            logger.info("policy %d arrived", answer.version, extra={"policy_version": answer.version})


class PolicyMismatchError(PolicyError):
    """A sound policy of another task: trainer and worker do not agree what is learned."""


def check_fits(policy: NumpyPolicy, task: TaskDescription) -> None:
    """Hold a policy against the task.

    Raises
    ------
    PolicyMismatchError
        Naming what differs, with both values.
    """
    description = policy.description
    for what, actual, expected in (
        ("observation_size", description.observation_size, task.observation_size),
        ("observation_hash", description.observation_hash, task.observation_hash),
        ("action_size", description.action_size, task.action_size),
    ):
        if actual != expected:
            raise PolicyMismatchError(f"{what} of policy {description.version} is {actual!r}, the task's {expected!r}")
