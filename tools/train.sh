#!/bin/sh
# Trains the experiments of a pipeline that have changed and prints its table.
# Usage: tools/train.sh [PIPELINE], "." (the default) or a data set's folder, such as pipelines/cifar10
set -eu
pipeline=${1:-.}
pipeline=${pipeline%/}
data=$(basename "$pipeline")
[ -f "$pipeline/params.yaml" ] || {
    echo "train: PIPELINE=$pipeline: expected a folder with a params.yaml, for example pipelines/cifar10" >&2
    exit 2
}
tools/data.sh
dvc="python -m steadyspike.parent dvc" # ends with this script, and so does what it runs
if [ "$pipeline" = . ]; then
    $dvc repro
else
    $dvc --cd "$(dirname "$pipeline")" repro --glob "report@$data-*" "report_memory@$data"
fi
reports=$pipeline/reports
[ ! -f "$reports/table4.md" ] || { echo; cat "$reports/table4.md"; echo; }
echo "The whole report: ${reports#./}/index.html"
