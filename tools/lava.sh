#!/bin/sh
# Usage: tools/lava.sh FOLDER
# Lava for the tests that run it: lava-nc 0.10.0 in a virtual environment of Python 3.10 in FOLDER. Prints the
# environment's Python, or nothing where there is no Python 3.10 or no way to install; those tests then skip and
# say what is missing. NMC_LAVA_PYTHON, if set, is taken as it is.
set -u
folder=$1

say() { echo "nmc set-up: $*" >&2; }

works() { "$1" -I -c 'import importlib.metadata as m; m.version("lava-nc")' >/dev/null 2>&1; }

if [ -n "${NMC_LAVA_PYTHON:-}" ]; then
    echo "$NMC_LAVA_PYTHON"
    exit 0
fi
if works "$folder/bin/python"; then
    echo "$(cd "$folder" && pwd)/bin/python"
    exit 0
fi
for python in python3.10 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.10.*/bin/python; do
    "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 10))' 2>/dev/null || continue
    say "installing lava-nc 0.10.0 beside $("$python" --version), for the tests that compare with it"
    if "$python" -m venv --clear "$folder" && "$folder/bin/python" -m pip install --quiet --disable-pip-version-check \
        lava-nc==0.10.0 >&2 && works "$folder/bin/python"; then
        echo "$(cd "$folder" && pwd)/bin/python"
        exit 0
    fi
    say "that did not work: the tests that run Lava will skip"
    rm -rf "$folder"
    exit 0
done
say "no Python 3.10 found: the tests that run Lava will skip and say how to get it"
