# What a newcomer does on one machine, and the results that must come.
# shellcheck shell=bash disable=SC2154

# From the start of the container to the first batch: the first epoch's line tells when the epoch
# ended and how fast it went.
sed -E 's/epochs: [0-9]+/epochs: 1/' params.yaml > "$folder/params.yaml"
docker compose run --rm train dvc pull --quiet --remote embedded data.dvc > /dev/null 2>&1
docker compose run --name steadyspike-first --volume "$folder/params.yaml:/params.yaml:ro" train \
    steadyspike train osr_ots --params /params.yaml --runs /tmp/runs > /dev/null 2>&1 ||
    fail "steadyspike train in the container"
line=$(docker logs --timestamps steadyspike-first 2>&1 | grep 'epoch 1/1 .* test ')
started=$(docker inspect --format '{{.State.StartedAt}}' steadyspike-first)
docker rm steadyspike-first > /dev/null
images=$(sed -nE 's/^ +"train": ([0-9]+).*/\1/p' data/manifest.json)
rate=$(sed -E 's/.* ([0-9,]+) images.*/\1/; s/,//g' <<< "$line")
figure "container start to first batch" "$(awk -v a="$(seconds "$started")" \
    -v b="$(seconds "${line%% *}")" -v n="$images" -v r="$rate" \
    'BEGIN { printf "%.1f", b - a - n / r }')" s 15

# A stop writes a checkpoint, from which the same command goes on.
docker compose up --detach train > /dev/null 2>&1
wait_for 'epoch 1/' train
docker compose stop train > /dev/null 2>&1
docker compose logs --no-log-prefix train 2>&1 | grep 'the same command goes on from' ||
    fail "a stopped container wrote no checkpoint"
ls runs/*/checkpoint.pt > /dev/null
docker compose up train 2>&1 | tail -n 15
[ "$(docker inspect --format '{{.State.ExitCode}}' steadyspike-test-train-1)" = 0 ] ||
    fail "docker compose up train"
git diff --exit-code --stat -- dvc.lock reports ||
    fail "the container's results differ from the committed ones"
grep -q 'OSR + OTS' reports/table4.md || fail "no table"

docker compose run --rm test tests/test_norm*.py tests/test_pins.py tests/test_files.py \
    tests/kernels/test_compiled.py
docker compose run --rm evaluate osr_ots > /dev/null 2>&1 || fail "evaluate"
git diff --exit-code --stat -- dvc.lock reports || fail "evaluate changed them"

strangers=$(find . ! -uid "$uid" -print -quit)
[ -z "$strangers" ] || fail "not the caller's: $strangers"

# Of every service: only what is mounted may be written, and no right is held or gained.
probe=$(cat docker/test/probe.sh)
for service in $(docker compose --profile '*' config --services); do
    told=$(docker compose run --rm --no-deps --entrypoint sh "$service" -c "$probe" 2> /dev/null) ||
        fail "$service may do more than it needs: $told"
done

export REPORT_PORT=8765
docker compose up --detach report > /dev/null 2>&1
wait_for 'Serving HTTP' report
exec 3<> "/dev/tcp/127.0.0.1/$REPORT_PORT"
printf 'GET /index.html HTTP/1.0\r\n\r\n' >&3
cmp <(sed '1,/^\r$/d' <&3) reports/index.html || fail "report serves another page"
exec 3>&-
docker compose down > /dev/null 2>&1
