#!/bin/sh
# Programs of the system that the tests of the hardware run: Icarus Verilog, a C++ compiler and make for Verilator. Root on
# Debian gets what is missing; everybody else is told, and the tests that need it skip and say so.
set -u
missing=
command -v iverilog >/dev/null || missing="$missing iverilog"
command -v g++ >/dev/null || missing="$missing g++"
command -v make >/dev/null || missing="$missing make"
[ -n "$missing" ] || exit 0

say() { echo "nmc set-up: $*" >&2; }

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing$missing, for the tests of the hardware"
    # shellcheck disable=SC2086
    if DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing >&2 ||
        { apt-get update >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing >&2; }; then
        exit 0
    fi
    say "that did not work"
fi
say "the tests that need them skip; on Debian, as root: apt-get install$missing"
