#!/bin/sh
# Chromium, in which the tests look at the page of a report. Root on Debian gets it; everybody else is told, and the tests that
# need it skip and say so.
set -u
command -v chromium >/dev/null && exit 0

say() { echo "nmc set-up: $*" >&2; }

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing chromium, for the tests of the report's page"
    if DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium fonts-dejavu-core >&2 ||
        { apt-get update >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium fonts-dejavu-core >&2; }; then
        exit 0
    fi
    say "that did not work"
fi
say "the tests of the report's page in a browser skip; on Debian, as root: apt-get install chromium"
