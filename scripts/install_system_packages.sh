#!/bin/sh
# Installs with apt what pip can't: Python itself, its venv module and headers, a C++ compiler, and OSMesa, with which
# MuJoCo renders without a display. Installs only what is missing, and asks for nothing; where it may not install, it
# prints the command and fails.
#   scripts/install_system_packages.sh [PYTHON]

here=$(dirname "$0")
python=$("$here/find_python.sh" "$@" 2>/dev/null) || python=

missing=
if [ -z "$python" ]; then
    # A Python that was named and doesn't run isn't ours to install: find_python.sh says so afterwards.
    [ $# -gt 0 ] || missing="$missing python3 python3-venv python3-dev"
else
    # Debian's packages are named after the version, for a Python that isn't the system's own.
    series=python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing $series-venv"
    "$python" -c 'import os, sysconfig; os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null ||
        missing="$missing $series-dev"
fi
command -v g++ >/dev/null || command -v c++ >/dev/null || missing="$missing g++"
/sbin/ldconfig -p | grep -q 'libOSMesa\.so' || missing="$missing libosmesa6"
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "missing here, under the names that Debian gives them:$missing; mend: install them with your package manager" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    sudo=
elif sudo -n true 2>/dev/null; then
    sudo="sudo -n"
else
    echo "system packages are missing; mend: sudo apt-get install$missing" >&2
    exit 1
fi
echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq </dev/null
$sudo apt-get install -qq --no-install-recommends $missing </dev/null >/dev/null || {
    echo "apt-get could not install$missing; its reason is above" >&2
    exit 1
}
