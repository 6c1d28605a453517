#!/bin/sh
# Trains what has changed of a pipeline and prints its table.
# Usage: tools/train.sh [FOLDER], the folder of the pipeline (default: .)
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
