"""The house around the code: dependencies, packages, the wheel, import directions, lazy imports, set-up."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
CONFIG = tomllib.loads(TEXT)
PACKAGES = {
    "nmc": ROOT / "nmc",
    "nmc_compiler": ROOT / "compiler" / "nmc_compiler",
    "nmc_emulator": ROOT / "emulator" / "nmc_emulator",
    "nmc_hw": ROOT / "hw" / "nmc_hw",
}
# Not on the way to `import nmc` or `nmc --help`: together they take more than a second to import.
HEAVY = {
    "distributed",
    "h5py",
    "llvmlite",
    "matplotlib",
    "networkx",
    "nir",
    "numba",
    "pyarrow",
    "pydantic",
    "scipy",
    "sklearn",
    "torch",
}


def sources() -> Iterator[Path]:
    for folder in PACKAGES.values():
        yield from sorted(folder.rglob("*.py"))


# --- dependencies and packages ---


def requirements() -> list[str]:
    extras = CONFIG["project"]["optional-dependencies"]
    return [
        *CONFIG["build-system"]["requires"],
        *CONFIG["project"]["dependencies"],
        *(requirement for names in extras.values() for requirement in names),
    ]


def uncommented(text: str, wanted: list[str]) -> list[str]:
    """Requirements none of whose lines goes on with a comment of some words."""
    lines = [(line.partition("#")[0], line.partition("#")[2].split()) for line in text.splitlines()]
    return [r for r in wanted if not any(f'"{r}"' in code and len(words) >= 2 for code, words in lines)]


def test_every_dependency_says_why_it_is_there() -> None:
    assert uncommented(TEXT, requirements()) == []


def test_a_dependency_without_a_reason_is_noticed() -> None:
    text = 'dependencies = [\n"a>=1",  # what a does\n"b>=2",\n"c", #x\n]\n'
    assert uncommented(text, ["a>=1", "b>=2", "c"]) == ["b>=2", "c"]


def test_the_extras_that_users_are_told_of() -> None:
    told = "torch nir hw fpga plot parquet sweep docs dev"
    assert " ".join(CONFIG["project"]["optional-dependencies"]) == told


def test_modules_of_tests_have_names_of_their_own() -> None:
    """They are no packages: two of one name would be one module to whichever test file runs second."""
    names = [path.stem for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for path in sources()}
    assert [str(f) for f in sorted(folders) if not (f / "__init__.py").is_file()] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names of the files in a wheel built from a copy of the tree, offline."""
    copy, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for folder in ("nmc", "compiler", "emulator", "hw"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    command = "-m pip wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir"
    done = subprocess.run([sys.executable, *command.split(), str(out), str(copy)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [path] = out.glob("*.whl")
    return zipfile.ZipFile(path).namelist()


def test_the_wheel_puts_four_names_into_site_packages(wheel: list[str]) -> None:
    top = {name.partition("/")[0] for name in wheel}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)


def test_the_wheel_holds_every_module_and_data_file(wheel: list[str]) -> None:
    expected = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert any(name.endswith(".yaml") for name in expected)
    assert expected - set(wheel) == set()


# --- import directions ---


@pytest.fixture
def lint(tmp_path: Path):
    """Add a line to a module in a copy of the tree and say what lint-imports makes of it."""
    for folder in ("nmc", "compiler", "emulator", "hw"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)

    def run(module: Path | None = None, line: str = "") -> subprocess.CompletedProcess[str]:
        if module is not None:
            path = tmp_path / module
            path.write_text((path.read_text(encoding="utf-8") if path.exists() else "") + f"\n{line}\n")
        search = os.pathsep.join(str(tmp_path / folder) for folder in (".", "compiler", "emulator", "hw"))
        return subprocess.run(
            [Path(sys.executable).parent / "lint-imports", "--no-logo", "--no-cache"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": search},
            capture_output=True,
            text=True,
        )

    return run


def test_import_directions_hold(lint) -> None:
    done = lint()
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "imports"),
    [
        ("compiler/nmc_compiler/graph/__init__.py", "nmc_compiler.target"),
        ("compiler/nmc_compiler/graph/__init__.py", "nmc_compiler.program"),
        ("compiler/nmc_compiler/target/__init__.py", "nmc_compiler.graph"),
        ("compiler/nmc_compiler/errors.py", "nmc_compiler.graph"),
        ("compiler/nmc_compiler/frontends/__init__.py", "nmc_compiler.passes"),
        ("compiler/nmc_compiler/frontends/__init__.py", "nmc_compiler.program"),
        ("compiler/nmc_compiler/passes/__init__.py", "nmc_compiler.program"),
        ("compiler/nmc_compiler/passes/__init__.py", "nmc_compiler.lowering"),
        ("compiler/nmc_compiler/program/__init__.py", "nmc_compiler.graph"),
        ("compiler/nmc_compiler/lowering/__init__.py", "nmc_compiler.mapping"),
        ("compiler/nmc_compiler/mapping/__init__.py", "nmc_emulator"),
        ("emulator/nmc_emulator/__init__.py", "nmc_compiler.graph"),
        ("emulator/nmc_emulator/__init__.py", "nmc_compiler.passes"),
        ("emulator/nmc_emulator/__init__.py", "nmc_hw"),
        ("hw/nmc_hw/__init__.py", "nmc_emulator"),
        ("hw/nmc_hw/__init__.py", "nmc"),
        ("nmc/extra.py", "nmc.cli"),
    ],
)
def test_a_wrong_import_is_refused(lint, module: str, imports: str) -> None:
    done = lint(Path(module), f"import {imports}")
    assert done.returncode == 1
    assert "BROKEN" in done.stdout and imports in done.stdout.partition("Broken contracts")[2]


def test_every_part_of_the_compiler_is_under_contract() -> None:
    layers = CONFIG["tool"]["importlinter"]["contracts"][0]["layers"]
    listed = {name.strip() for layer in layers for name in layer.split("|")}
    parts = {
        f"nmc_compiler.{path.stem}"
        for path in PACKAGES["nmc_compiler"].iterdir()
        if path.name != "__init__.py" and (path.suffix == ".py" or (path / "__init__.py").is_file())
    }
    assert parts - listed == set()
    assert listed - parts == set(PACKAGES) - {"nmc_compiler"}


# --- what an import costs ---


def heavy_after(code: str) -> set[str]:
    """Heavy packages that a fresh interpreter has loaded after running ``code``."""
    tell = "import sys, json; print('\\n' + json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{tell}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return HEAVY & set(json.loads(done.stdout.splitlines()[-1]))


def test_import_nmc_is_light() -> None:
    assert heavy_after("import nmc") == set()


def test_help_is_light() -> None:
    code = (
        "import sys; sys.argv = ['nmc', '--help']\nfrom nmc.cli import main\n"
        "try:\n    status = main()\nexcept SystemExit as stop:\n    status = stop.code\n"
        "assert not status, status"
    )
    assert heavy_after(code) == set()


def test_a_heavy_import_is_noticed() -> None:
    assert "networkx" in heavy_after("import networkx")


@pytest.mark.parametrize(
    ("module", "code", "refused"),
    [
        ("nmc/x.py", "import torch", True),
        ("nmc/x.py", "import matplotlib.pyplot as plt", True),
        ("compiler/nmc_compiler/frontends/x.py", "from torch import nn", True),
        ("emulator/nmc_emulator/run.py", "from numba import njit", True),
        ("emulator/nmc_emulator/run.py", "def f():\n    from numba import njit", False),
        ("emulator/nmc_emulator/kernels/x.py", "from numba import njit", False),
    ],
)
def test_heavy_packages_are_imported_where_they_are_used(module: str, code: str, refused: bool) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "TID253", "--stdin-filename"]
    done = subprocess.run([*command, module, "-"], cwd=ROOT, input=code, capture_output=True, text=True)
    assert (done.returncode, "TID253" in done.stdout) == (int(refused), refused)


# --- set-up ---


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    """A PATH of real small scripts, with the few system programs that the set-up script uses."""
    path = tmp_path / "bin"
    path.mkdir()
    (path / "sh").symlink_to("/bin/sh")
    return path


def script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def set_up(bin_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(ROOT / "tools" / "venv.sh"), *arguments],
        env={"PATH": str(bin_dir)},
        cwd=bin_dir.parent,
        capture_output=True,
        text=True,
    )


# As Debian's python3 without python3-venv: new enough, but no ensurepip until the file `installed` exists.
DEBIAN_PYTHON = """case "$*" in
*sys.version_info*) exit 0 ;;
*ensurepip*) [ -e installed ] ;;
--version) echo Python 3.11.2 ;;
*'-m venv --clear'*) echo "$@" > made ;;
*) exit 1 ;;
esac"""


def test_set_up_makes_an_environment_that_works(tmp_path: Path) -> None:
    done = set_up(Path("/usr/bin"), str(tmp_path / "venv"), sys.executable)
    assert done.returncode == 0, done.stderr
    assert "nmc set-up: making" in done.stderr
    python = tmp_path / "venv" / "bin" / "python"
    assert subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0
    marker = tmp_path / "venv" / "marker"
    marker.touch()
    again = set_up(Path("/usr/bin"), str(tmp_path / "venv"), sys.executable)
    assert (again.returncode, again.stderr) == (0, "") and marker.exists()


def test_root_gets_the_missing_venv_module_installed(bin_dir: Path) -> None:
    script(bin_dir / "python3", DEBIAN_PYTHON)
    script(bin_dir / "id", "echo 0")
    script(bin_dir / "apt-get", 'echo "$@" >> apt; case "$*" in *install*python3-venv) : > installed ;; esac')
    done = set_up(bin_dir, "venv")
    assert done.returncode == 0, done.stderr
    tmp = bin_dir.parent
    assert (tmp / "apt").read_text().splitlines() == [
        "update",
        "install -y --no-install-recommends python3-venv",
    ]
    assert (tmp / "made").read_text() == "-m venv --clear venv\n"


def test_others_are_told_how_to_get_it(bin_dir: Path) -> None:
    script(bin_dir / "python3", DEBIAN_PYTHON)
    script(bin_dir / "id", "echo 1000")
    script(bin_dir / "apt-get", "echo no; exit 100")
    done = set_up(bin_dir, "venv")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "nmc set-up: python3 cannot make a virtual environment: its modules venv and ensurepip are missing",
        "nmc set-up: on Debian, as root: apt-get install python3-venv",
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["venv"],
            "no Python 3.11 or newer on PATH; on Debian 12: apt-get install python3, or name one with",
        ),
        (["venv", "/no/python"], "/no/python is not a Python 3.11 or newer; name one with make PYTHON="),
        (
            ["bin"],
            "bin is there and is not a virtual environment; move it away, or choose another with make VENV=",
        ),
    ],
)
def test_set_up_that_cannot_go_on_says_why(bin_dir: Path, arguments: list[str], says: str) -> None:
    done = set_up(bin_dir, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(f"nmc set-up: {says}")


def dry_run(target: str) -> str:
    """What make would run for ``target`` on a fresh machine, also where make itself runs these tests."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "-n", "--no-print-directory", target, "VENV=no-such-venv"]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout


def test_make_demo_sets_up_the_core_packages_and_shows_the_whole_path() -> None:
    assert re.findall(r"(venv\.sh|pip install .*|nmc \w+ .*)", dry_run("demo")) == [
        "venv.sh",
        "pip install --quiet --disable-pip-version-check -e .",
        "nmc compile examples/digits/model.pt --target loihi2 -o build/digits",
        "nmc emulate build/digits --input examples/digits/test.npz",
        "nmc report build/digits",
    ]


def test_make_test_ends_with_pytest_and_leaves_nothing_out() -> None:
    step = r"venv\.sh|\[dev,torch\]|ruff check|ruff format --check|mypy|lint-imports|-m pytest"
    ran = dry_run("test")
    assert re.findall(step, ran) == [name.replace("\\", "") for name in step.split("|")]
    assert "-m pytest" in ran.splitlines()[-1]


def test_ci_runs_make_test() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert script.splitlines()[-1] == "exec make test"


def test_modules_of_the_exported_folder_are_not_named_like_folders_that_our_commands_write() -> None:
    """They import each other by bare names: beside a folder build/ the linters took its module ``build`` for that."""
    exported = {path.stem for path in (PACKAGES["nmc_compiler"] / "export" / "lava" / "folder").glob("*.py")}
    assert exported & {"build", "dist", "docs", "examples", "run"} == {"run"}  # nobody imports run.py
