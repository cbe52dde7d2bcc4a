#!/bin/sh
# remus KIND SENDER RECEIVER: checkpoints to a receiver on this host; when 20 are through the sender is killed, and the receiver's
# guest goes on from the last.
# shellcheck source=lib.sh
. /share/lab/lib.sh
create g "$1"
proves g
id=$(id_of g)
with "$2" xl remus -F -n -d -u -i 300 -s '' g "$(receiver "$3" -r)" &
sender=$!
epochs() { [ "$(beats g | sed -n 's/.*cancelled=\([0-9]*\).*/\1/p' | sort -n | tail -n 1)" -ge 20 ]; }
wait_for 240 epochs || die "20 epochs took more than 240 s"
kill -KILL "$sender" "$(helper_of "$id")"
in_time 30 xl destroy "$id"
from=$(last_beat g)
arrived() { beats g | grep -q 'resumed=1 .*'; }
wait_for 120 arrived || die "no guest went on at the receiver"
proves g resumed=1
at=$(beats g | sed -n 's/^BEAT \([0-9]*\) .*resumed=1 .*/\1/p' | sed -n 1p)
[ "$((from - at))" -lt 20 ] || die "it went on from beat $at, the source had come to $from"
