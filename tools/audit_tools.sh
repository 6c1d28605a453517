#!/bin/sh
# Makes build/audit from requirements-audit.lock, every hash checked: what looks at the packages lies
# apart from them. Usage: tools/audit_tools.sh
set -eu
cd "$(dirname "$0")/.."
lock=requirements-audit.lock
# In a container the checkout may hold those of its host.
if cmp -s "$lock" build/audit/made-from && build/audit/bin/python -c '' 2> /dev/null; then exit 0; fi
python=.venv/bin/python
[ -x "$python" ] || python=python3
rm -rf build/audit
"$python" -m venv build/audit
if [ -x .venv/bin/uv ] && .venv/bin/uv pip install --quiet --python build/audit/bin/python \
    --require-hashes --requirement "$lock"; then
    :
else
    build/audit/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes \
        --requirement "$lock"
fi
cp "$lock" build/audit/made-from
