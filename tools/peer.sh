#!/bin/sh
# Usage: tools/peer.sh FOLDER PACKAGE VERSION PYTHON GIVEN [MORE]
# A simulator of others for the tests that run it: PACKAGE==VERSION from PyPI in a virtual environment of PYTHON (3.10,
# say) in FOLDER. Prints the environment's Python, or nothing where there is no such Python or no way to install; those
# tests then skip and say what is missing. GIVEN, a Python that has the package already, is taken as it is. MORE: a
# package that the tests' script needs beside it.
set -u
folder=$1 package=$2 version=$3 minor=$4 given=${5:-} more=${6:-}

say() { echo "nmc set-up: $*" >&2; }

works() { "$1" -I -c "import importlib.metadata as m; m.version('$package')" >/dev/null 2>&1; }

if [ -n "$given" ]; then
    echo "$given"
    exit 0
fi
if works "$folder/bin/python"; then
    echo "$(cd "$folder" && pwd)/bin/python"
    exit 0
fi
for python in "python$minor" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$minor".*/bin/python; do
    "$python" -c "import sys, venv, ensurepip; sys.exit('%d.%d' % sys.version_info[:2] != '$minor')" 2>/dev/null || continue
    say "installing $package $version beside $("$python" --version), for the tests that compare with it"
    if "$python" -m venv --clear "$folder" && "$folder/bin/python" -m pip install --quiet --disable-pip-version-check \
        "$package==$version" $more >&2 && works "$folder/bin/python"; then
        echo "$(cd "$folder" && pwd)/bin/python"
        exit 0
    fi
    say "that did not work: the tests that run $package will skip"
    rm -rf "$folder"
    exit 0
done
say "no Python $minor found: the tests that run $package will skip and say how to get it"
