#!/usr/bin/env bash
# Measures an accelerator in about ten minutes, the most wanted parts first:
#
#   benchmarks/on_device.sh OUT [OPTION...]
#
# OUT is the folder that the measurements are written to, a JSON file for each
# part and report.txt with what was printed. A part that fails or takes too long
# costs no other. Options:
#
#   --python=PYTHON         with jaxkd's packages; default: .venv/bin/python, or
#                           python3
#   --torch_python=PYTHON   with PyTorch, to measure these beside our steps:
#   --mdistiller=DIR --RepDistiller=DIR --torchdistill=DIR
#   --minutes=N             that all of it may take; default: 10
#   --small                 little of each part, on small nets: to see that it
#                           runs
#   --only=PART,...         some parts
#   --dry                   say what would be run, and run nothing
set -u

usage() { sed -n '2,/^set -u/p' "$0" | sed '$d; s/^# \{0,1\}//'; }

out='' python='' torch='' clones=() minutes=10 small='' only='' dry=''
for argument in "$@"; do
  value=${argument#*=}
  case $argument in
    --python=*) python=$value ;;
    --torch_python=*) torch=$value ;;
    --mdistiller=* | --RepDistiller=* | --torchdistill=*)
      clones+=("$argument") ;;
    --minutes=*) minutes=$value ;;
    --small) small=yes ;;
    --only=*) only=,$value, ;;
    --dry) dry=yes ;;
    --help | -h) usage; exit 0 ;;
    -*) echo "error: there is no option $argument" >&2; usage >&2; exit 2 ;;
    *)
      if [ -n "$out" ]; then
        echo "error: one folder is enough: $out or $argument" >&2; exit 2
      fi
      out=$argument ;;
  esac
done
if [ -z "$out" ]; then
  echo 'error: name the folder to write to' >&2; usage >&2; exit 2
fi
if ! [[ $minutes =~ ^[0-9]+$ ]]; then
  echo "error: --minutes=$minutes is not a whole number" >&2; exit 2
fi
log=/dev/null
if [ -z "$dry" ]; then
  mkdir -p "$out" || exit 2
  out=$(cd "$out" && pwd)
  log=$out/report.txt
  : > "$log" || exit 2
fi
cd "$(dirname "$0")/.." || exit 2
if [ -z "$python" ]; then
  python=.venv/bin/python
  [ -x "$python" ] || python=python3
fi
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

# What is left of the time. SECONDS is how long this shell has run.
left() { echo $((60 * minutes - SECONDS)); }

failed=0
# part NAME LIMIT ARGUMENT...: a measurement of at most LIMIT seconds, written
# to NAME.json. It ends itself a little before, and is ended if it does not.
part() {
  local name=$1 limit=$2 code=0
  shift 2
  case $only in '' | *,"$name",*) ;; *) return ;; esac
  # What is small is there to be seen to run, however slow the machine is.
  [ -z "$small" ] || limit=$((10 * limit))
  # A little is kept for the start and the end of each.
  [ "$limit" -le $(($(left) - 5)) ] || limit=$(($(left) - 5))
  if [ "$limit" -lt 15 ]; then
    echo "$name: left out, the time is over" | tee -a "$log"
    failed=$((failed + 1))
    return
  fi
  local command=("$python" experiments/benchmark.py "$@" "--out=$out/$name.json")
  echo "$name: at most $limit s: ${command[*]}" | tee -a "$log"
  [ -z "$dry" ] || return
  timeout --kill-after=10 "$limit" "${command[@]}" 2>&1 |
    tee -a "$log"
  code=${PIPESTATUS[0]}
  if [ "$code" -ne 0 ]; then
    failed=$((failed + 1))
    echo "$name: has failed ($code)" | tee -a "$log"
  fi
}

# peers NAME LIMIT ARGUMENT...: the same beside the peers, where there are any.
peers() {
  local name=$1 limit=$2
  shift 2
  if [ -n "$torch" ] && [ ${#clones[@]} -gt 0 ]; then
    part "$name" "$limit" "$@" "--torch_python=$torch" "${clones[@]}"
  else
    case $only in '' | *,"$name",*) ;; *) return ;; esac
    echo "$name: left out, no PyTorch is given" | tee -a "$log"
  fi
}

times=(--steps=50 --seconds=8)
nets=resnet32x4-resnet8x4 peers_nets=resnet32x4-resnet8x4
if [ -n "$small" ]; then
  times=(--steps=2 --seconds=1 --within=1)
  nets=demo peers_nets=resnet20-resnet8
fi

# Members of conv nets and ViTs in each way, and what 'auto' chooses.
part members 130 --population=members --within=105 "${times[@]}"
# What distilling costs beyond its parts; the last row has cached teachers.
part steps 80 --case=$nets --within=40 "${times[@]}"
peers peers 90 --peers=kd,plain,teacher,crd,reviewkd --case=$peers_nets \
  --within=40 "${times[@]}"
part steps_bfloat16 70 --case=$nets --dtype=bfloat16 --within=35 "${times[@]}"
peers peers_bfloat16 60 --peers=kd,plain,teacher --case=$peers_nets \
  --dtype=bfloat16 --within=30 "${times[@]}"
if [ -z "$small" ]; then
  # resnet50 to resnet18 at 224 pixels.
  part large 80 --case=resnet50-resnet18 --within=40 "${times[@]}"
  peers peers_large 70 --peers=kd,plain --case=resnet50-resnet18 \
    --within=35 "${times[@]}"
  peers peers_large_bfloat16 70 --peers=kd,plain --case=resnet50-resnet18 \
    --dtype=bfloat16 --within=35 "${times[@]}"
fi

echo "$failed parts have failed or were left out; the rest is in $out" |
  tee -a "$log"
[ "$failed" -eq 0 ]
