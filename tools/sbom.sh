#!/bin/sh
# Writes the bill of materials of an image, in CycloneDX's JSON, checked against its schema.
# Usage: tools/sbom.sh IMAGE [FILE], sbom.json if no FILE is named
set -eu
[ $# -ge 1 ] || {
    echo "sbom: expected the name of an image: tools/sbom.sh steadyspike [sbom.json]" >&2
    exit 2
}
folder=$(dirname "$0")
"$folder/audit_tools.sh"
PYTHONPATH=$folder/../src exec "$folder/../build/audit/bin/python" "$folder/sbom.py" "$@"
