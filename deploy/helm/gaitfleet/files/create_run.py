"""Creates the run from its experiment file, or finds it there. Runs in the image of the replay API, as a Job.

Exit codes: 0 done; 1 the API did not answer in time (the Job tries again); 2 trying again would not help.
Refusals, but that of a run with another experiment, count only when time is up: until then they may be those of a
replica of the former version, which an upgrade is replacing.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from gaitfleet.errors import ExperimentError
from gaitfleet.experiment import load_experiment
from gaitfleet.task import make_task


def main() -> int:
    url = f"{os.environ['API_URL']}/v1/runs/{os.environ['RUN']}"
    token = Path(os.environ["TOKEN_FILE"]).read_text(encoding="utf-8").strip()
    try:
        experiment = load_experiment(Path(os.environ["EXPERIMENT_FILE"]))
        make_task(experiment.task)
    except ExperimentError as error:
        print(f"run.experiment: {error}")
        return 2
    body = json.dumps(experiment.model_dump(mode="json")).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    deadline = time.monotonic() + float(os.environ["WAIT_SECONDS"])
    while True:
        request = urllib.request.Request(url, data=body, headers=headers, method="PUT")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                print(f"run {os.environ['RUN']}:", "created" if answer.status == 201 else "there already, as described")
                return 0
        except urllib.error.HTTPError as error:
            said = f"{error.code}: {error.read(2000).decode('utf-8', 'replace')}"
            if error.code == 409:
                print(said)
                print("The run exists with another experiment. Choose another run.name, or give it its own experiment.")
                return 2
            refused = error.code < 500 and error.code != 429
        except OSError as error:
            said, refused = str(error), False
        print(f"waiting for the replay API: {said}", flush=True)
        if time.monotonic() > deadline:
            return 2 if refused else 1
        time.sleep(3)


sys.exit(main())
