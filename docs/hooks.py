"""Pages that MkDocs makes when it builds the site: options from conf/, README.md, RESULTS.md and the notebooks."""

from __future__ import annotations

import json
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent


def on_files(files: Files, config) -> Files:
    """Adds the generated pages."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {
        "index.md": re.sub(r"\]\((docs/)?(?!https?:)([^)]+)\)", _link, readme),
        "results.md": (ROOT / "RESULTS.md").read_text(encoding="utf-8").replace("(docs/", "("),
        "options.md": options_page(),
        **{
            f"examples/{file.stem}.md": notebook_page(file)
            for file in (ROOT / "docs" / "examples").glob("*.ipynb")
        },
    }
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page, config, files: Files) -> str:
    """Links that leave docs/ lead nowhere on the site: shows their text only."""
    return re.sub(r"\[([^\]]+)\]\(\.\./(?!RESULTS)[^)]*\)", r"`\1`", markdown).replace(
        "(../RESULTS.md)", "(results.md)"
    )


def _link(found: re.Match) -> str:
    path = found[2]
    if path == "RESULTS.md":
        return "](results.md)"
    return f"]({path})" if found[1] else "](contributing.md)"


def notebook_page(file: Path) -> str:
    """The cells of a notebook, and a link to it."""
    parts = []
    for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join([*parts, f"[Download this notebook]({file.name})", ""])


def options_page() -> str:
    """Every option of every group, with its default and the comment beside it in conf/."""
    lines = [
        "# Options",
        "",
        "Generated from [conf/](contributing.md). `rankdistil --cfg job` prints the chosen ones.",
        "",
    ]
    files = [ROOT / "conf" / "config.yaml"]
    for group in ("data", "teacher", "student", "loss", "train", "evaluate", "tracking", "export"):
        files += sorted((ROOT / "conf" / group).glob("*.yaml"))
    for file in files:
        group = "" if file.parent.name == "conf" else f"{file.parent.name}="
        lines += [f"## {group}{file.stem}" if group else "## Of every run", "", *_rows(file), ""]
    return "\n".join(lines)


def _rows(file: Path) -> list[str]:
    text = file.read_text(encoding="utf-8").split("\nhydra:")[0]
    head = [line[2:] for line in text.splitlines() if line.startswith("# ")]
    rows = [*head, "", "| option | default | meaning |", "| --- | --- | --- |"]
    prefix = "" if file.parent.name == "conf" else f"{file.parent.name}."
    keys: list[tuple[int, str]] = []
    for line in text.splitlines():
        found = re.match(r"^(\s*)([\w]+):(?:\s+([^#]*?))?\s*(?:#\s*(.*))?$", line)
        if not found or found[2] in ("defaults", "name"):
            continue
        indent = len(found[1])
        keys = [(depth, key) for depth, key in keys if depth < indent] + [(indent, found[2])]
        if found[3]:
            name = prefix + ".".join(key for _, key in keys)
            value, meaning = (str(part or "").replace("|", "\\|") for part in (found[3], found[4]))
            rows.append(f"| `{name}` | `{value}` | {meaning} |")
    return rows
