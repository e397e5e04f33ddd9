# Sourced by the scripts beside it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '== %s\n' "$*"; }
fail() { printf 'hesper: %s\n' "$*" >&2; exit 1; }

# One job a core, but 2 GiB of free memory for each: a file that includes Torch takes that much to compile.
jobs() {
  local cores free limit
  cores=$(nproc)
  free=$(awk '/^MemAvailable:/ {print int($2 / 1024 / 1024)}' /proc/meminfo)
  limit=$(cat /sys/fs/cgroup/memory.max 2>/dev/null || echo max)
  if [[ $limit =~ ^[0-9]+$ ]] && ((limit >> 30 < free)); then free=$((limit >> 30)); fi
  local by_memory=$((free / 2))
  ((by_memory >= 1)) || by_memory=1
  echo $((cores < by_memory ? cores : by_memory))
}
