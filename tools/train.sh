#!/bin/sh
# Trains the experiments of a pipeline that have changed and prints the main columns of its Table 4.
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
    columns="Method|Accuracy, last|First step"
else
    $dvc --cd "$(dirname "$pipeline")" repro --glob "report@$data-*" "report_memory@$data"
    columns="Method|Experiment|Accuracy, last|First step"
fi
reports=$pipeline/reports
if [ -f "$reports/table4.md" ]; then
    echo
    # The whole table is too wide for a terminal.
    grep '^|' "$reports/table4.md" | awk -F'|' -v columns="^ *($columns)" '
        NR == 1 { for (i = 2; i < NF; i++) if ($i ~ columns) kept[++n] = i }
        { line = "|"; for (k = 1; k <= n; k++) line = line $kept[k] "|"; print line }'
    echo
fi
echo "The whole report: ${reports#./}/index.html"
