#!/bin/sh
# link KIND ADDRESS: xl-stream send to xl-stream receive --listen on one host, live, over the sockets of ADDRESS, the guest busy
# meanwhile.
# shellcheck source=lib.sh
. /share/lab/lib.sh
create g "$1" extra="rate=16"
proves g
before=$(id_of g)
in_time 250 /tmp/bin/xl-stream receive --listen "$2" --once 2>/tmp/case/receiver &
receiver=$!
listening() { grep listening /tmp/case/receiver; }
wait_for 30 listening || die "xl-stream receive does not listen: $(cat /tmp/case/receiver)"
in_time 200 /tmp/bin/xl-stream send "$before" "$2" || die "xl-stream send: exit status $?"
wait "$receiver" || die "xl-stream receive: exit status $?: $(cat /tmp/case/receiver)"
[ "$(id_of g)" != "$before" ] || die "domain $before is still there"
proves g resumed=1
