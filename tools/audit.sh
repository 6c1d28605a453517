#!/bin/sh
# Looks every locked package up in the OSV database of known vulnerabilities.
# Usage: tools/audit.sh [LOCK ...], all locks by default. OSV_URL names another database.
# Exit status: 1 if a package is vulnerable or an audit failed; 0 if none is, or if the database
# cannot be reached, which CI must survive.
set -u
cd "$(dirname "$0")/.." || exit
[ $# -gt 0 ] || set -- requirements*.lock
status=0
for lock in "$@"; do
    # pip-audit's default database counts a package that it does not know as safe; OSV's does not.
    if output=$(build/audit/bin/pip-audit --disable-pip --require-hashes --progress-spinner off \
        --vulnerability-service osv --osv-url "${OSV_URL:-https://api.osv.dev/v1/query}" \
        --requirement "$lock" 2>&1); then
        echo "audit: $lock: no known vulnerabilities"
    elif reason=$(echo "$output" | grep -E '^requests\.exceptions\.(Connection|.*Timeout|Proxy)'); then
        echo "audit: skipped, the database cannot be reached: $reason"
        exit "$status"
    else
        echo "$output"
        echo "audit: $lock: FAILED" >&2
        status=1
    fi
done
exit "$status"
