#!/bin/sh
# pair-send KIND HOW: xl-stream send, live, to xl-stream receive on the other lab of a pair.
#
#   HOW  tcp, to a receiver that listens there; exec, by a command that runs one there, as ssh would
# shellcheck source=lib.sh
. /share/lab/lib.sh
set -e
on_peer '. /share/lab/lib.sh; clean; xl list' || die "the other lab does not answer"
to="exec:sh /share/lab/peer /tmp/bin/xl-stream receive"
if [ "$2" = tcp ]; then
  to=tcp:$PEER:8002
  # A line each: peer takes no more.
  on_peer "timeout 280 /tmp/bin/xl-stream receive --listen $to --once </dev/null >/tmp/case/receiver 2>&1 &" || die "the other lab does not start it"
  on_peer '. /share/lab/lib.sh; wait_for 30 grep listening /tmp/case/receiver' || die "xl-stream receive does not listen there"
fi
create g "$1" extra="rate=16"
proves g
in_time 280 /tmp/bin/xl-stream send g "$to" || die "xl-stream send: exit status $?"
if id_of g; then die "the guest is still here"; fi
on_peer '. /share/lab/lib.sh; proves g resumed=1' || die "the guest does not prove itself there"
