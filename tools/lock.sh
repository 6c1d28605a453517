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
