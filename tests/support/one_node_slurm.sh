#!/usr/bin/env bash
# A Slurm cluster of this one machine, for the tests marked "cluster". Needs root and Debian's slurm-wlm and munge.
#   tests/one_node_slurm.sh start    starts munged, slurmctld and slurmd where they do not run yet, and waits for the node
#   tests/one_node_slurm.sh stop     stops the daemons that this script started
# State, logs and the configuration lie in ${SLURM_TEST_HOME:-/tmp/anytime-bench-slurm}; /etc/slurm is left alone.
# Clients need SLURM_CONF, which "start" prints. SLURM_TEST_CPUS sets how many CPUs the node has.
set -euo pipefail

home=${SLURM_TEST_HOME:-/tmp/anytime-bench-slurm}
node=$(hostname -s)
export SLURM_CONF=$home/slurm.conf

running() { [[ -s $home/$1.pid ]] && kill -0 "$(cat "$home/$1.pid" 2>/dev/null)" 2>/dev/null; }

stop_daemons() {
  for daemon in slurmd slurmctld munged; do
    if running "$daemon"; then
      kill "$(cat "$home/$daemon.pid")" 2>/dev/null || true
      for _ in $(seq 50); do running "$daemon" || break; sleep 0.1; done
    fi
    rm -f "$home/$daemon.pid"
  done
}

write_configuration() {
  local memory
  memory=$(($(awk '/MemTotal/{print $2}' /proc/meminfo) / 1024 * 8 / 10))
  cat >"$home/slurm.conf" <<CONF
ClusterName=anytimebench
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$home/munge/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
JobRequeue=1
KillWait=5
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.pid
SlurmctldLogFile=$home/slurmctld.log
SlurmdLogFile=$home/slurmd.log
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MinJobAge=3600
NodeName=$node NodeAddr=127.0.0.1 CPUs=${SLURM_TEST_CPUS:-$(nproc)} RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
}

start_daemons() {
  for tool in munged slurmctld slurmd; do
    if ! command -v "$tool" >/dev/null; then
      echo "$tool is missing: install slurm-wlm and munge" >&2
      exit 3
    fi
  done
  [[ $(id -u) == 0 ]] || { echo "a test cluster needs root" >&2; exit 3; }
  mkdir -p "$home/state" "$home/spool" "$home/munge"
  chmod 755 "$home" "$home/munge"
  if ! running munged; then
    # A key, a socket and a user of its own: a munge that serves this machine is not touched.
    [[ -s $home/munge.key ]] || { dd if=/dev/urandom of="$home/munge.key" bs=128 count=1 status=none; chmod 400 "$home/munge.key"; }
    munged --force --key-file="$home/munge.key" --socket="$home/munge/munge.socket" \
      --pid-file="$home/munged.pid" --log-file="$home/munged.log" --seed-file="$home/munge.seed"
  fi
  write_configuration
  running slurmctld || slurmctld
  for _ in $(seq 50); do scontrol ping 2>/dev/null | grep -q UP && break; sleep 0.2; done
  running slurmd || slurmd -N "$node"
  for _ in $(seq 100); do
    if sinfo -h -o %T 2>/dev/null | grep -Eq 'idle|mixed|allocated'; then
      echo "export SLURM_CONF=$SLURM_CONF"
      return
    fi
    sleep 0.2
  done
  echo "the node did not come up; see $home/slurmctld.log and $home/slurmd.log" >&2
  exit 1
}

case ${1:-} in
  start) start_daemons ;;
  stop) stop_daemons ;;
  *) sed -n '2,6p' "$0"; exit 2 ;;
esac
