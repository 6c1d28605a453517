# What goes wrong most often, and that each is told: docs/docker.md quotes these.
# shellcheck shell=bash disable=SC2154

export REPORT_PORT=8765
docker compose up --detach report > /dev/null 2>&1
refused 'port is already allocated|address already in use' \
    docker compose --project-name steadyspike-other up --detach report
docker compose down > /dev/null 2>&1
printf '%s\n' 'services: {train: {volumes: [".:/steadyspike:ro"]}}' > "$folder/read-only.yaml"
refused 'this checkout is read-only' \
    docker compose --file compose.yaml --file "$folder/read-only.yaml" run --rm train true
refused "this checkout belongs to user $uid, and user 4321 runs here" \
    docker compose run --rm --user 4321:4321 train true
refused 'expected a folder with a dvc.yaml' \
    env PIPELINE=pipelines/mnist docker compose run --rm train
if ! command -v nvidia-smi > /dev/null; then
    refused 'could not select device driver' \
        docker compose --file compose.yaml --file docker/gpu.yaml run --rm train true
fi
refused 'Cannot connect to the Docker daemon' \
    env DOCKER_HOST=unix:///nowhere/docker.sock docker compose up train
refused '127.0.0.1:29400: 3 machines did not meet there in time' \
    env COMPOSE_FILE=compose.yaml:docker/cluster.yaml MACHINES=3 PATIENCE=3 \
    docker compose run --rm --env FIRST=127.0.0.1 worker
