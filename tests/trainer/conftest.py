"""What the tests of the trainer share."""

from __future__ import annotations

import torch

# Networks of these sizes gain nothing from a second thread, and wait for it on a busy machine
torch.set_num_threads(1)
