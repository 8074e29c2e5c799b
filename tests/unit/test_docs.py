"""The examples on our pages run and print what the pages say.

Python: every fenced block ``python`` with ``>>>`` prompts; blocks of a page share their names.
Shell: every fenced block ``console`` below a line ``<!-- runs -->``; lines after ``$ `` are commands
run in order in a folder that holds ``examples``, the lines below each its output, ``...`` for anything.
"""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
FENCE = re.compile(r"(<!-- runs -->\n+)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def python_examples(page: Path) -> list[doctest.DocTest]:
    """One doctest for each block of a page, with its line in the page; they share their names."""
    text, names = page.read_text(encoding="utf-8"), {"__name__": "__main__"}
    tests = []
    for match in FENCE.finditer(text):
        if match[2] == "python" and ">>>" in match[3]:
            line = text[: match.start(3)].count("\n")
            test = doctest.DocTestParser().get_doctest(match[3], names, page.name, str(page), line)
            test.globs = names  # the parser makes a copy
            tests.append(test)
    return tests


def shell_examples(text: str) -> list[tuple[str, str]]:
    """Pairs of command and expected output of the blocks marked to run."""
    pairs = []
    for match in FENCE.finditer(text):
        if match[1] and match[2] == "console":
            for part in re.split(r"^\$ ", match[3], flags=re.MULTILINE)[1:]:
                command, _, output = part.partition("\n")
                pairs.append((command, output))
    return pairs


def differences(tests: list[doctest.DocTest]) -> str:
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for test in tests:
        runner.run(test, out=said.append, clear_globs=False)
    return "".join(said)


def run_shell(pairs: list[tuple[str, str]], folder: Path) -> list[str]:
    """Run the commands in ``folder``; what went otherwise than the page says."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    wrong = []
    for command, expected in pairs:
        done = subprocess.run(
            command, shell=True, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
        )
        if done.returncode:
            wrong.append(f"$ {command}\nexit status {done.returncode}\n{done.stderr}")
        elif expected and not doctest.OutputChecker().check_output(expected, done.stdout, FLAGS):
            wrong.append(f"$ {command}\nexpected:\n{expected}\ngot:\n{done.stdout}")
    return wrong


@pytest.mark.parametrize("page", [p for p in PAGES if python_examples(p)], ids=lambda page: page.name)
def test_python_examples(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)  # examples may write files
    told = differences(python_examples(page))
    assert not told, told


def test_shell_examples(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for page in PAGES:
        told = run_shell(shell_examples(page.read_text(encoding="utf-8")), tmp_path)
        assert not told, f"{page.name}:\n" + "\n".join(told)


def test_a_wrong_python_example_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\n>>> x = 2\n```\ntext\n```python\n>>> x + 1\n4\n```\n")
    told = differences(python_examples(page))
    assert f'File "{page}", line 6' in told
    assert "Expected:\n    4\nGot:\n    3" in told


def test_shell_examples_are_run_and_compared(tmp_path: Path) -> None:
    marked = "<!-- runs -->\n```console\n$ echo one two\none ...\n$ false\n$ echo 3\n4\n```\n"
    page = marked + "```console\n$ exit 9\n```\n"
    told = run_shell(shell_examples(page), tmp_path)
    assert told == ["$ false\nexit status 1\n", "$ echo 3\nexpected:\n4\n\ngot:\n3\n"]


def test_pages_are_all_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    toctree = re.search(r"```\{toctree\}\n(.*?)```", index, re.DOTALL)
    assert toctree is not None
    listed = {line for line in toctree[1].split() if not line.startswith(":")} - {"1"}
    assert listed == {page.stem for page in PAGES} - {"README", "index"}


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
