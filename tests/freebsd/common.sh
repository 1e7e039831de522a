#!/bin/sh
# What the programs of this folder share: waiting, and an end that no case can hang.

# fail REASON: ends the case. A reason of several lines would make it a broken one.
fail() { atf_fail "$(printf '%s' "$*" | tr '\n' ' ')"; }

# wait_until WHAT COMMAND...: until the command succeeds, a minute at most.
wait_until()
{
	_what=$1
	shift
	_n=0
	until "$@"; do
		_n=$((_n + 1))
		[ "${_n}" -lt 300 ] || fail "not in a minute: ${_what}: $(tail -5 log 2>/dev/null)"
		sleep 0.2
	done
}

# worker_of FILE OPTION: the worker of the supervisor whose process id is in the file, by an option of
# both. A child that is no program of its own yet looks like one, and in an upgrade so does
# the worker before.
worker_of()
{
	_n=0
	until _found=$(pgrep -P "$(cat "$1")" -f -- "$2") && [ "$(echo "${_found}" | wc -l)" -eq 1 ]; do
		_n=$((_n + 1))
		[ "${_n}" -lt 100 ] || return 1
		sleep 0.1
	done
	echo "${_found}"
}

# dead PID: it runs no more, though the kernel may keep it until GEOM is idle.
dead()
{
	case "$(ps -o state= -o wchan= -p "$1")" in
	"" | Z* | *E*g_waitid*) ;;
	*) return 1 ;;
	esac
}

# gone PID: within ten seconds.
gone()
{
	_n=0
	while kill -0 "$1" 2>/dev/null; do
		[ "${_n}" -lt 20 ] || return 1
		_n=$((_n + 1))
		sleep 0.5
	done
}

# same FILE OTHER: they hold the same. By their sums: where a processor is emulated cmp(1)
# takes a second for each 5 MiB.
same()
{
	atf_check_equal "$(md5 -q "$1")" "$(md5 -q "$2")"
}

# unmount_begin unmounts mnt, and does not wait for it longer than that: what it writes
# waits for ever where no daemon answers, or the volume is full, and ends when the device
# is destroyed. The end of a case must not last a minute.
unmount_begin()
{
	umount -f mnt 2>/dev/null &
	UNMOUNTING=$!
	gone "${UNMOUNTING}"
}

# end_daemon PID: it, and what it has started.
end_daemon()
{
	kill "$1" 2>/dev/null
	gone "$1" || pkill -9 -x ggated-virstor
}

# destroy_units FOLDER: the devices whose records are there.
destroy_units()
{
	for _record in "$1"/*.unit; do
		[ -f "${_record}" ] || continue
		timeout 10 ggatel destroy -f -u "$(sed -n 's/.*"unit":\([0-9]*\).*/\1/p' "${_record}")" 2>/dev/null
		rm -f "${_record}"
	done
}

# detach_disks: those that are named on the input.
detach_disks()
{
	while read -r _disk; do
		_n=0
		until mdconfig -d -u "${_disk}" 2>/dev/null || [ "${_n}" -gt 20 ]; do
			_n=$((_n + 1))
			sleep 0.2
		done
	done
}
