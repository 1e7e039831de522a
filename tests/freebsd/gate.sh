#!/bin/sh
# A daemon that a case starts itself, with the volume vol on two disks in memory, and what
# lies on its device. The folder of the case has its control socket, records and log.

gate_head()
{
	atf_set "descr" "$1"
	atf_set "require.user" "root"
	# One list: a property may be set once, so a case adds its programs here.
	atf_set "require.progs" "ggated-virstor gvirstor newfs fsck_ffs mdconfig${3:+ $3}"
	atf_set "timeout" "${2:-900}"
}

# gate_setup [SIZE [DISK]]: two disks of 256 MiB in memory, a volume of 1 GiB on them, and
# a run folder; or of the sizes that are given.
gate_setup()
{
	kldload -n geom_gate 2>/dev/null || atf_skip "geom_gate cannot be loaded"
	# It would be told of the volume, and serve it.
	if pgrep -x ggated-virstor >/dev/null; then
		atf_skip "ggated-virstor is running already"
	fi
	: > disks
	for _ in 1 2; do
		mdconfig -a -t swap -s "${2:-256m}" >> disks || atf_skip "mdconfig makes no disks"
	done
	DISKS=$(cat disks)
	CONTROL=$(pwd)/control
	GVIRSTOR_CONTROL=${CONTROL}
	export GVIRSTOR_CONTROL
	mkdir -p run mnt
	# shellcheck disable=SC2086
	atf_check -o ignore -e ignore env GVIRSTOR_CONTROL= gvirstor label -s "${1:-1g}" -m 4m vol ${DISKS}
}

daemon_start()
{
	rm -f ready
	# shellcheck disable=SC2086
	ggated-virstor --control "${CONTROL}" --run-dir "$(pwd)/run" --backup-dir "$(pwd)/backups" --state-dir "$(pwd)/state" "$@" ${DISKS} >> log 2>&1 &
	echo $! > pid
	wait_until "the daemon serves" serves
}

serves()
{
	kill -0 "$(cat pid)" 2>/dev/null || fail "the daemon ended: $(tail -5 log)"
	[ -S "${CONTROL}" ] && gvirstor status 2>/dev/null | grep -q physical
}

node() { gvirstor status | awk 'NR == 2 { print $1 }'; }

# Another child may wait for the kernel; it has no arguments.
worker() { worker_of pid --control; }

kill_worker() { kill -9 "$(worker)" || fail "there is no worker to kill: $(ps -axo pid,ppid,args)"; }

# The supervisor first: it would start another worker. Who of them closes the disks last may
# wait in the kernel, for whoever answers the device next.
kill_both()
{
	_worker=$(worker)
	kill -9 "$(cat pid)" "${_worker}"
	wait_until "the daemon is dead" dead "$(cat pid)"
}

# taken_over N: so often a daemon has taken over, since the log began.
taken_over() { [ "$(grep -c 'msg="taken over"' log)" -ge "$1" ]; }

daemon_stop()
{
	kill "$(cat pid)"
	wait "$(cat pid)" || fail "the daemon failed: $(tail -5 log)"
}

copy_tree()
{
	_i=0
	while [ "${_i}" -lt "$1" ]; do
		dd if=/dev/random of=source bs=64k count=8 2>/dev/null
		cp source "mnt/f${_i}" || return 1
		md5 -q source >> sums
		_i=$((_i + 1))
	done
}

# check_tree: mnt has what copy_tree wrote.
check_tree() { check_tree_in mnt; }

# check_tree_in FOLDER: it has what copy_tree wrote.
check_tree_in()
{
	_i=0
	while read -r _sum; do
		[ "$(md5 -q "$1/f${_i}")" = "${_sum}" ] || fail "file ${_i} of $1 differs"
		_i=$((_i + 1))
	done < sums
}

gate_cleanup()
{
	: > enough
	unmount_begin
	if [ -f pid ]; then
		timeout 10 gvirstor --control "$(pwd)/control" stop -f "${VOLUME:-vol}" 2>/dev/null
		end_daemon "$(cat pid)"
	fi
	destroy_units run
	wait "${UNMOUNTING}"
	[ -f disks ] && detach_disks < disks
	return 0
}
