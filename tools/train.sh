#!/bin/sh
# Trains every experiment of a pipeline that has changed, and prints its table.
# Usage: tools/train.sh [PIPELINE], the pipeline's folder (.)
set -eu
pipeline=${1:-.}
[ -f "$pipeline/dvc.yaml" ] || {
    echo "train: PIPELINE=$pipeline: expected a folder with a dvc.yaml, for example pipelines/cifar10" >&2
    exit 2
}
dvc pull --quiet --remote embedded data.dvc
dvc repro "$pipeline/dvc.yaml"
[ ! -f "$pipeline/reports/table4.md" ] || { echo; cat "$pipeline/reports/table4.md"; echo; }
echo "The whole report: $pipeline/reports/index.html"
