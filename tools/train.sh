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
reports=$pipeline/reports
[ ! -f "$reports/table4.md" ] || { echo; cat "$reports/table4.md"; echo; }
reports=${reports#./}
echo "The whole report: $reports/index.html"
