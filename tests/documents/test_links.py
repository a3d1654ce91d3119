"""What the documents point to exists."""

import re
from pathlib import Path

import pytest

from gaitfleet.quality import RULES
from replay_api.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [path for path in ROOT.glob("**/*.md") if not any(part.startswith(".") for part in path.parts)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8"))
    relative = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert [target for target in relative if not (document.parent / target).exists()] == []


def test_the_readme_puts_a_file_path_on_every_arrow_of_the_loop() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    arrows = [line for line in readme.splitlines() if re.match(r"\| \S+ → \S+ \|", line)]
    assert len(arrows) == 4
    assert all(len(re.findall(r"\.py\)", arrow)) >= 3 for arrow in arrows)


def test_the_page_on_analysis_lists_every_check() -> None:
    page = (ROOT / "docs" / "analysis.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE) == list(RULES)


def test_the_page_on_security_lists_every_limit_with_its_default() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(max_[a-z_]+)` \| (\d+) \|", page, re.MULTILINE))
    limits = {name: str(field.default) for name, field in Settings.model_fields.items() if name.startswith("max_")}
    assert listed == limits
