"""Holds the journal of the clients against the stores. Asks MongoDB and S3 and nobody else.

    python -m tests.soak.checker JOURNAL RUN --mongodb-uri URI --database NAME --checkpoint-store s3://BUCKET/PREFIX …

What it proves, or names: every acknowledged episode is stored, whole, under its id, once; no episode is stored under
two ids; every acknowledged checkpoint that the run's rule keeps is stored and recorded; the objects of the head, of
the best and of every record are there with the bytes that they are named by; and the head never went back.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from pymongo import MongoClient
from pymongo.database import Database

from gaitfleet import codec
from gaitfleet.episode import content_digest, decode_episode
from gaitfleet.errors import GaitfleetError
from tests.servers import s3_client
from tests.soak.journal import JournalReader

Entry = dict[str, Any]

SHOWN = 20
"""Faults of one sort that are spelled out; the others are counted."""


@dataclass
class Verdict:
    """What was found.

    Parameters
    ----------
    counts
        How much was looked at.
    faults
        Broken promises, in words, by sort.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[str]] = field(default_factory=dict)

    def fault(self, sort: str, words: str) -> None:
        """Note a broken promise."""
        self.faults.setdefault(sort, []).append(words)

    @property
    def sound(self) -> bool:
        """Whether nothing is broken."""
        return not self.faults

    def as_json(self) -> Entry:
        """For the record: everything counted, the first faults of each sort in words."""
        faults = {sort: {"count": len(words), "first": words[:SHOWN]} for sort, words in self.faults.items()}
        return {"sound": self.sound, "counts": dict(sorted(self.counts.items())), "faults": faults}


@dataclass(frozen=True)
class Stores:
    """Where the data of one run lie."""

    database: Database[Entry]
    s3: Any
    bucket: str
    prefix: str
    run: str

    def digest_of(self, key: str) -> str | None:
        """SHA-256 of an object; None when there is none."""
        try:
            answer = self.s3.get_object(Bucket=self.bucket, Key=f"{self.prefix}{key}")
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise
        return hashlib.sha256(answer["Body"].read()).hexdigest()

    def objects(self) -> Iterator[str]:
        """Keys of the run's objects."""
        pages = self.s3.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self.bucket, Prefix=f"{self.prefix}runs/{self.run}/"):
            yield from (found["Key"].removeprefix(self.prefix) for found in page.get("Contents", ()))


def check(stores: Stores, journal: Sequence[Entry]) -> Verdict:
    """Hold a journal against the stores."""
    verdict = Verdict()
    _check_episodes(stores, [entry for entry in journal if entry["kind"] == "episode"], verdict)
    _check_checkpoints(stores, [entry for entry in journal if entry["kind"] == "checkpoint"], verdict)
    _check_history(stores, verdict)
    _check_observations([entry for entry in journal if entry["kind"] in ("head", "policy")], verdict)
    return verdict


def _check_episodes(stores: Stores, acknowledged: Sequence[Entry], verdict: Verdict) -> None:
    found: dict[str, str] = {}
    played: dict[bytes, str] = {}
    for document in stores.database["episodes"].find({"run": stores.run}).hint([("$natural", 1)]):
        key = document["_id"].removeprefix(f"{stores.run}/")
        if key in found:
            verdict.fault("twice", f"episode {key} is there twice")
        try:
            body = codec.decompress(document["content"], limit_bytes=1 << 30)
            trajectory = decode_episode(body).trajectory
        except GaitfleetError as error:
            verdict.fault("torn", f"episode {key} cannot be read: {error}")
            continue
        found[key] = content_digest(body)
        if found[key] != document["content_digest"]:
            verdict.fault("torn", f"episode {key} has digest {found[key]}, its document {document['content_digest']}")
        rows = hashlib.sha256(trajectory.state.tobytes() + trajectory.action.tobytes()).digest()
        if played.setdefault(rows, key) != key:
            verdict.fault("twice", f"episodes {played[rows]} and {key} are one episode")
    told = {entry["id"]: entry["digest"] for entry in acknowledged}
    for key, digest in told.items():
        if key not in found:
            verdict.fault("lost", f"episode {key} was acknowledged and is not there")
        elif found[key] != digest:
            verdict.fault("torn", f"episode {key} was acknowledged with digest {digest}, there is {found[key]}")
    verdict.counts["episodes acknowledged"] = len(told)
    verdict.counts["episodes stored"] = len(found)


def _check_checkpoints(stores: Stores, acknowledged: Sequence[Entry], verdict: Verdict) -> None:
    document = stores.database["runs"].find_one({"_id": stores.run})
    assert document is not None, f"there is no run {stores.run}"
    records = {record["step"]: record for record in stores.database["checkpoints"].find({"run": stores.run})}
    head = document["head"]
    published = records.keys() | {entry["step"] for entry in acknowledged}
    kept = sorted(published, reverse=True)[: json.loads(document["experiment"])["checkpoints"]["keep_last"]]
    used = set()
    for name, info in (("head", head), ("best", document["best"]), *((f"record {s}", r) for s, r in records.items())):
        if info is None:
            continue
        stem = f"runs/{stores.run}/{info['epoch']}-{info['step']}-{info['digest']}"
        for key, digest in ((f"{stem}.safetensors", "digest"), (f"{stem}.policy.safetensors", "policy_digest")):
            used.add(key)
            there = stores.digest_of(key)
            if there != info[digest]:
                verdict.fault("torn checkpoint", f"{name} is step {info['step']}; of {key} there is {there}")
    for entry in acknowledged:
        step = entry["step"]
        if head is None or head["step"] < step:
            verdict.fault("regressed head", f"step {step} was acknowledged, the head is {head and head['step']}")
        elif step in records and records[step]["digest"] != entry["digest"]:
            verdict.fault("torn checkpoint", f"step {step} was acknowledged with {entry['digest']}, and differs")
        elif step not in records and step in kept:
            verdict.fault("lost checkpoint", f"step {step} was acknowledged, would be kept, and has no record")
    verdict.counts["checkpoints acknowledged"] = len(acknowledged)
    verdict.counts["checkpoints recorded"] = len(records)
    verdict.counts["orphaned objects"] = len(set(stores.objects()) - used)


def _check_history(stores: Stores, verdict: Verdict) -> None:
    """The run's own history of publications, in the order of its events."""
    query = {"run": stores.run, "kind": "checkpoint_published"}
    published = [json.loads(event["data"]) for event in stores.database["events"].find(query).sort("_id", 1)]
    for before, after in pairwise(published):
        if (after["epoch"], after["step"]) < (before["epoch"], before["step"]) or after["step"] <= before["step"]:
            verdict.fault("regressed head", f"{after['step']} was published after {before['step']}")
    verdict.counts["publications in the history"] = len(published)


def _check_observations(observed: Sequence[Entry], verdict: Verdict) -> None:
    """Heads as the database showed them, and policies as one process of one replica served them, over time."""
    last: dict[str, Entry] = {}
    for entry in observed:
        before = last.setdefault(entry["of"], entry)
        if entry["step"] < before["step"]:
            words = f"{entry['of']} showed {entry['kind']} {entry['step']} after {before['step']}"
            verdict.fault("regressed head", words)
        elif entry["step"] == before["step"] and entry["digest"] != before["digest"]:
            verdict.fault("torn checkpoint", f"{entry['of']} showed two contents of step {entry['step']}")
        last[entry["of"]] = entry
    verdict.counts["heads observed"] = len(observed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("journal", type=Path, help="file that the clients wrote")
    parser.add_argument("run")
    parser.add_argument("--mongodb-uri", required=True)
    parser.add_argument("--database", default="gaitfleet")
    parser.add_argument("--checkpoint-store", required=True, help="s3://BUCKET/PREFIX")
    parser.add_argument("--s3-endpoint-url", required=True)
    options = parser.parse_args()
    reader = JournalReader(options.journal)
    reader.more()
    bucket, _, prefix = options.checkpoint_store.removeprefix("s3://").partition("/")
    client: MongoClient[Entry] = MongoClient(options.mongodb_uri)
    stores = Stores(
        client[options.database],
        s3_client(options.s3_endpoint_url),
        bucket,
        f"{prefix}/" if prefix else "",
        options.run,
    )
    verdict = check(stores, reader.entries)
    print(json.dumps(verdict.as_json(), indent=2))
    return 0 if verdict.sound else 1


if __name__ == "__main__":
    sys.exit(main())
