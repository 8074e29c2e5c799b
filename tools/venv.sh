#!/bin/sh
# Usage: tools/venv.sh FOLDER [PYTHON]
# Makes a virtual environment of Python 3.11 or newer in FOLDER, or leaves a working one as it is.
# Where Debian's python3 lacks its venv module, root gets it installed and others are told how.
set -eu
folder=$1
python=${2:-}

say() { echo "nmc set-up: $*" >&2; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

can_make_venv() { "$1" -c 'import venv, ensurepip' 2>/dev/null; }

pick_python() {
    for candidate in python3.11 python3 python3.12 python3.13; do
        if new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
}

if [ -x "$folder/bin/python" ] && new_enough "$folder/bin/python" && "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
    exit 0
fi
if [ -e "$folder" ] && [ ! -e "$folder/pyvenv.cfg" ]; then
    say "$folder is there and is not a virtual environment; move it away, or choose another with make VENV=FOLDER"
    exit 1
fi

[ -n "$python" ] || python=$(pick_python)
if [ -z "$python" ]; then
    say "no Python 3.11 or newer on PATH; on Debian 12: apt-get install python3, or name one with make PYTHON=/path/to/python3.11"
    exit 1
fi
if ! new_enough "$python"; then
    say "$python is not a Python 3.11 or newer; name one with make PYTHON=/path/to/python3.11"
    exit 1
fi

if ! can_make_venv "$python"; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "$python lacks its venv module; installing Debian's python3-venv"
        apt-get update >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv >&2
    fi
    if ! can_make_venv "$python"; then
        say "$python cannot make a virtual environment: its modules venv and ensurepip are missing"
        say "on Debian, as root: apt-get install python3-venv"
        exit 1
    fi
fi
say "making $folder with $("$python" --version)"
"$python" -m venv --clear "$folder"
