#!/bin/sh
# direct-abort KIND WHEN HOW: xc-save without a toolstack ends too early. The guest runs on as before, and its writes are not logged.
#
#   WHEN  early, in the first round of --live, or late, after the suspend and before END
#   HOW   term or kill, the signal that xc-save gets; reader, who goes away; full, the disk; restore, kill of xc-restore
#         (of the one process: its guardian then undoes what it made)
# shellcheck source=lib.sh
. /share/lab/lib.sh
create g "$1"
proves g
id=$(id_of g)
live=--live suspends=0
[ "$2" = early ] || live='' suspends=1
mkdir -p /tmp/case/small
mount -t tmpfs -o size=4m small /tmp/case/small
mkfifo /tmp/case/pipe
case $3 in
  restore) { head -c 2000000; sleep 300; } </tmp/case/pipe | /tmp/bin/xc-restore & ;;
  *) { head -c 2000000 >/dev/null; sleep 300; } </tmp/case/pipe & ;;
esac
reader=$!
[ "$3" = full ] && to=/tmp/case/small/g || to=/tmp/case/pipe
# shellcheck disable=SC2086 # an option or none
/tmp/bin/xc-save $live "$id" >"$to" &
saving=$!
case $2,$3 in
  *,full) ;;
  early,*) wait_for 60 log_dirty "$id" || die "the guest's writes were never logged" ;;
  late,*) wait_for 60 suspended "$id" || die "the guest was not suspended" ;;
esac
sleep 2
if [ "$2 $3" = 'early kill' ]; then # a second saver is refused, and does not take the log of the first
  /tmp/bin/xc-save --live "$id" >/tmp/case/second 2>/tmp/case/why && die "a second xc-save: exit status 0"
  grep "process $saving is at work" /tmp/case/why || die "the second xc-save says: $(cat /tmp/case/why)"
  log_dirty "$id" || die "the log is off"
fi
case $3 in
  term | kill) kill -"$3" "$saving" ;;
  restore)
    others "$id" || die "no domain is half-built"
    kill -KILL "$reader"
    ;;
esac
sleep 1
killall -q -KILL sleep
wait "$saving" && die "xc-save: exit status 0"
proves g "suspended=$suspends" resumed=0
if log_dirty "$id"; then die "log-dirty is still on"; fi
alone() { ! others "$id"; }
wait_for 30 alone || die "a half-built domain is left"
