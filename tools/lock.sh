#!/bin/sh
# Pins the newest versions that pyproject.toml allows, for every platform, with hashes and without
# naming an index.
set -eu
compile="uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes
    --no-header --no-emit-index-url"
$compile --extra pipeline --extra dev --output-file requirements.lock pyproject.toml
echo uv | $compile --output-file requirements-uv.lock -
# The libraries that `make bench BENCH=--peers` compares with, beside the same versions of the rest.
$compile --extra peers --constraint requirements.lock \
    --output-file requirements-peers.lock pyproject.toml
# What `steadyspike export` writes with, the simulators that read it, and TensorBoard. sinabs asks for an older
# nir than the others can use, so the lock is installed without looking at dependencies.
echo 'nir>=1.0.8' | $compile --extra export --extra simulators --extra log --constraint requirements.lock \
    --override - --output-file requirements-export.lock pyproject.toml
# The tools of `make audit`, `make licences` and `make sbom`, and a validator of crates with the
# context of RO-Crate 1.1.
printf '%s\n' pip-audit pip-licenses cyclonedx-bom roc-validator 'rocrate==0.14.*' |
    $compile --output-file requirements-audit.lock -
# The fuzzer of `make reliability`; its version 3.1 has no wheel for Python 3.11.
echo 'atheris==3.0.*; sys_platform == "linux" and python_version < "3.14"' |
    $compile --output-file requirements-fuzz.lock -
