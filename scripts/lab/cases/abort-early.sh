#!/bin/sh
# abort-early KIND HOW: a live migration ends before the suspend request. The source runs on, and its writes are not logged.
#
#   HOW  term or kill, the signal that the save helper gets; receiver, whose end dies; full, the disk behind it
# shellcheck source=lib.sh
. /share/lab/lib.sh
create g "$1"
proves g
id=$(id_of g)

receiver="sh /share/lab/stuck stock"
if [ "$2" = full ]; then # where nothing but a file is at the other end, after the words that xl waits for
  mkdir -p /tmp/case/small
  mount -t tmpfs -o size=4m small /tmp/case/small
  receiver="echo 'xl migration receiver ready, send binary domain data.'; exec cat >/tmp/case/small/g"
fi
with ours in_time 120 xl migrate -s '' g "$receiver" &
migration=$!
if [ "$2" != full ]; then
  wait_for 60 log_dirty "$id" || die "the migration never logged the guest's writes"
  wait_for 60 helper_of "$id" || die "no save helper is running"
  sleep 2
fi
case $2 in
  term | kill)
    kill -"$2" "$(helper_of "$id")"
    wait_for 60 no_helper "$id" || die "the save helper does not go"
    ;;
esac
killall -q -KILL sleep # stuck's: the receiver now sees an end of its input
wait "$migration" && die "xl migrate: exit status 0"
no_helper "$id" || die "its save helper still runs"
proves g suspended=0
if log_dirty "$id"; then
  case $HELPER,$2 in "$stock,kill" | "$stock,receiver" | "$stock,full") ;; *) die "log-dirty is still on" ;; esac
  echo "log-dirty is still on, as the stock helper leaves it when a signal kills it"
fi
