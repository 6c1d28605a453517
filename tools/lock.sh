#!/bin/sh
# Pins everything that pyproject.toml allows, for every platform, with hashes and no host name.
set -eu
compile="uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes
    --no-header --no-emit-index-url"
$compile --extra pipeline --extra dev --output-file requirements.lock pyproject.toml
echo uv | $compile --output-file requirements-uv.lock -
# What only a comparison with other libraries needs, beside the same versions of all else.
$compile --extra peers --constraint requirements.lock \
    --output-file requirements-peers.lock pyproject.toml
# What only looks at the packages (make audit, tools/sbom.sh), in build/audit.
printf '%s\n' pip-audit 'cyclonedx-python-lib[json-validation]' |
    $compile --output-file requirements-audit.lock -
# What only fuzzes the readers of files (make reliability); 3.1 has no wheel for Python 3.11.
echo 'atheris==3.0.*; sys_platform == "linux" and python_version < "3.14"' |
    $compile --output-file requirements-fuzz.lock -
