# Two containers as two machines: as one machine, and as if nothing had happened after one is lost.
# shellcheck shell=bash disable=SC2154

export COMPOSE_FILE=compose.yaml:docker/cluster.yaml PIPELINE=small
mkdir small
sed -E 's/widths: \[[^]]*\]/widths: [8, P, 16, P, 16, P, 16]/; s/epochs: [0-9]+/epochs: 2/
    s/batch: 25/batch: 100/; s/(steps|chunk): 4/\1: 2/' params.yaml > small/params.yaml
[ "$(grep -cE 'epochs: 2$|batch: 100|(steps|chunk): 2' small/params.yaml)" = 6 ] ||
    fail "params.yaml is written otherwise than this test expects"
give_to_caller

last_epoch() { tail -n 1 "small/$1/osr_ots/history.csv"; }
weights() { sha256sum < "small/$1/osr_ots/model.safetensors"; }

docker compose run --rm data > /dev/null 2>&1
docker compose run --rm train steadyspike train osr_ots --params small/params.yaml \
    --runs small/one > /dev/null 2>&1
docker compose up worker 2>&1 | grep 'epoch' || fail "two machines"
mv small/runs small/two
# Two add up in another order than one, and a spike more or less changes all that follows: nearly
# the same loss in the first epoch, about the same accuracy at the end.
paste -d , small/one/osr_ots/history.csv small/two/osr_ots/history.csv | awk -F , '
    function off(a, b) { return a > b ? a - b : b - a }
    NR == 1 { for (i = 1; i <= NF / 2; i++) column[$i] = i; half = NF / 2 }
    NR == 2 { loss = column["train_loss"]; same_loss = off($loss, $(loss + half)) < 0.001 * $loss }
    NR == 3 { accuracy = column["test_accuracy"]; same_accuracy = off($accuracy, $(accuracy + half)) < 4 }
    END { print "docker-test: one machine, then two: " $0; exit !(same_loss && same_accuracy) }' ||
    fail "two machines learn otherwise than one"

# The first machine, at which they meet: the worse loss. Killed from within, so that the engine
# takes it for a machine that has crashed, and starts it again.
docker compose rm --force --stop worker > /dev/null 2>&1
docker compose up --detach worker > /dev/null 2>&1
wait_for 'epoch 1/2 .* test ' worker
sleep 1
docker compose exec --index 1 worker sh -c 'kill -9 -1' || true
ls small/runs/osr_ots/checkpoint.pt > /dev/null || fail "killed too late for a test"
for _ in $(seq 600); do
    [ -n "$(docker compose ps --quiet --status running --status restarting worker)" ] || break
    sleep 0.5
done
restarts=$(docker inspect --format '{{.RestartCount}}' steadyspike-test-worker-1)
[ "$restarts" -ge 1 ] || fail "the first machine was never lost"
[ "$(weights runs)" = "$(weights two)" ] || {
    docker compose logs worker >&2
    fail "other weights after a machine was lost"
}
echo "docker-test: a lost machine came back ($restarts), same weights: $(weights two)"
[ "$(last_epoch runs)" = "$(last_epoch two)" ] || fail "other metrics after a machine was lost"
[ -z "$(find small ! -uid "$uid" -print -quit)" ] || fail "files that are not the caller's"
unset COMPOSE_FILE PIPELINE
