#!/bin/sh
# remus KIND SENDER RECEIVER: checkpoints to a receiver on this host; when 20 are through the sender is killed, and the receiver's
# guest goes on from the last.
# shellcheck source=lib.sh
. /share/lab/lib.sh
create g "$1"
proves g
id=$(id_of g)
with "$2" xl remus -F -n -d -u -i 2000 -s '' g "$(receiver "$3" -r)" &
sender=$!
epochs() { beats g | sed -n 's/.*suspended=\([0-9]*\).*/\1/p' | sort -n | tail -n 1; }
enough() { [ "$(epochs)" -ge 20 ]; }
wait_for 240 enough || die "$(epochs) epochs in 240 s"
# The guest has just gone on, so the sender waits for the next checkpoint: a libxl that loses its stream in its own records of one, as
# 4.17's, may spin for ever, or fail an assertion.
last=$(epochs)
another() { [ "$(epochs)" -gt "$last" ]; }
wait_for 60 another || die "no epoch after $last"
kill -KILL "$sender" "$(helper_of "$id")"
in_time 30 xl destroy "$id"
sent=$(epochs)
arrived() { beats g | grep -q 'resumed=1'; }
wait_for 120 arrived || die "no guest went on at the receiver"
got=$(beats g | sed -n 's/.*suspended=\([0-9]*\) resumed=1.*/\1/p' | sed -n 1p)
[ "$got" -ge $((sent - 1)) ] || die "it went on from epoch $got of $sent"
proves g resumed=1
