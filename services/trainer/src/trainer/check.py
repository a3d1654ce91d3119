"""``python -m trainer.check``: what torch computes on here; for `gaitfleet doctor`."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from gaitfleet.checkup import Finding, absent, failed, first_line, passed, tell


def findings() -> Iterator[Finding]:
    """Whether there is a GPU, and whether it computes."""
    built_for = f"torch {torch.__version__}, built for CUDA {torch.version.cuda or 'none'}"
    if not torch.cuda.is_available():
        yield absent("GPU", f"{built_for}, sees none: the trainer computes on {torch.get_num_threads()} CPU threads")
        return
    for index in range(torch.cuda.device_count()):
        name = f"GPU {index}"
        try:
            values = torch.arange(1024, dtype=torch.float32, device=f"cuda:{index}").reshape(32, 32)
            right = torch.equal((values @ torch.eye(32, device=values.device)).cpu(), values.cpu())
            properties = torch.cuda.get_device_properties(index)
        except RuntimeError as error:
            yield failed(name, f"{built_for}: {first_line(error)}", "update the driver, or use --device cpu")
            continue
        detail = f"{properties.name}, {properties.total_memory / 1e9:.0f} GB; {built_for}"
        if right:
            yield passed(name, detail)
        else:
            yield failed(name, f"{detail}; it computes a wrong product", "do not train on it")


if __name__ == "__main__":
    tell(findings())
