#!/usr/bin/env bash
# Makes the shipped model: the mean of two networks that differ in their seed, a candidate bundle, its report, the gate; and a reduced
# one from the project's own corpus alone.
#
#     training/make_shipped.sh DATA runs
#
# DATA is the folder with real.train.jsonl, real.dev.jsonl, docs.dev.jsonl and pool.{en,ar}.jsonl.gz. Two to three hours on two
# cores; stopped half-way, the same command goes on. `rasid-train release --destination models/released` is left to whoever has
# read the gate's verdict; the bundle released before must then go, for there may be only one.
set -euo pipefail
if [[ $# -ne 2 ]]; then
  sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
data=$1 runs=$2
here=$(cd "$(dirname "$0")" && pwd)
texts=(--collection "$data/pool.en.jsonl.gz" --collection "$data/pool.ar.jsonl.gz" --collection "$data/real.train.jsonl")

unseen=(--exclude "$data/real.dev.jsonl" --exclude "$data/docs.dev.jsonl")

rasid-train fit --data "$data/real.train.jsonl" --data "$here/corpus" --annotations "$here/annotations" \
  --corrections "$here/annotations/corrections" "${texts[@]}" "${unseen[@]}" --work "$runs/shipped" --epochs 3 --seed 1 --seed 2
rasid-train export --work "$runs/shipped"
rasid-train calibrate --work "$runs/shipped" --name rasid --version 1.2.0 --articles "$here/annotations/articles" \
  "${texts[@]}" "${unseen[@]}"

rasid-eval run --bundle "$runs/shipped/bundle" --data "$data/real.dev.jsonl" --documents "$data/docs.dev.jsonl" \
  --out "$runs/shipped/report.json"

rasid-train run --data "$here/corpus" --work "$runs/reduced" --name reduced --version 1.2.0 --epochs 3
rasid-eval run --bundle "$runs/reduced/bundle" --data "$data/real.dev.jsonl" --out "$runs/reduced/report.json"

rasid-eval gate "$runs/shipped/bundle" --data "$data/real.dev.jsonl" --documents "$data/docs.dev.jsonl" \
  --out "$runs/shipped/gate.json"
