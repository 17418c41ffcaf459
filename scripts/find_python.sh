#!/bin/sh
# Prints the path of the Python to use: the one given, else the first that fits. Fails with the mend where none does.
#   scripts/find_python.sh [PYTHON]

fits() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

for candidate in ${1:-python3 python3.12 python3.11 python3.10}; do
    if fits "$candidate"; then
        "$candidate" -c 'import sys; print(sys.executable)'
        exit 0
    fi
done
if [ $# -gt 0 ]; then
    echo "$1 isn't a Python of version 3.10 to 3.12 that runs; mend: give another, as in: make setup PYTHON=python3.11" >&2
else
    echo "no Python of version 3.10 to 3.12 found; mend: install one and name it, as in: make setup PYTHON=/path/to/python3.11" >&2
fi
exit 1
