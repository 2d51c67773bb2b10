#!/bin/bash
# A run on Slurm: `sbatch --time=... THIS_FILE [a.b=c ...]` from the root of a checkout with a
# .venv, on a file system that all nodes share. The first node drives and calls the teacher.
#
# Made by `cgd cluster render jobs/runs/smollm2_135m_cpu.toml --out cluster/smollm2_135m_cpu`
# from the run file, as is every number here: change that.
#SBATCH --job-name=smollm2-135m-cpu
#SBATCH --output=%x-%j.log
#SBATCH --nodes=1 --ntasks-per-node=1 --cpus-per-task=6 --mem=16G
#SBATCH hetjob
#SBATCH --nodes=2 --ntasks-per-node=1 --cpus-per-task=8 --mem=18G

set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
export PATH="$PWD/.venv/bin:$PATH" RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0

# Whoever has this token may run code on the nodes: one for each job, readable by its owner alone.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$PWD/.cgd/token-$SLURM_JOB_ID"
(umask 077 && mkdir -p .cgd && openssl rand -hex 32 > "$RAY_AUTH_TOKEN_PATH")
chmod 600 "$RAY_AUTH_TOKEN_PATH"

# Two jobs may share a node: a port and a folder of our own.
port=$((20000 + SLURM_JOB_ID % 20000))
head=$(hostname --ip-address | cut -d' ' -f1)
folder=/tmp/ray-$SLURM_JOB_ID

ray start --head --node-ip-address="$head" --port=$port --temp-dir="$folder" \
  --include-dashboard=false --num-cpus=6 \
  --labels=cgd-head=true,cgd-rows=true,cgd-teacher=true --block &
ray=$!
trap 'kill $(jobs -p) || true; rm -rf "$RAY_AUTH_TOKEN_PATH" "$folder"' EXIT
srun --het-group=1 ray start --address="$head:$port" --num-cpus=3 \
  --labels=cgd-sampler=true,cgd-trainer=true,cgd-server=true --block &

export RAY_ADDRESS="$head:$port"
until ray health-check --address="$RAY_ADDRESS" > /dev/null 2>&1; do
  kill -0 $ray # it has ended: so do we
  sleep 2
done
python jobs/run.py jobs/runs/smollm2_135m_cpu.toml "$@"
