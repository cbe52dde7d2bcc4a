#!/bin/sh
# xl-layers KIND: with the configuration of a file that stock xl saved, xl-stream save writes the same octets wherever the guest's
# own state does not decide, and verify-v2 finds nothing to blame. Without it, the configuration that it finds is that same one.
# shellcheck source=lib.sh
. /share/lab/lib.sh
PATH=/tmp/bin:$PATH
create g "$1"
proves g
save stock g /tmp/case/stock -c
proves g suspended=1
xl-stream unwrap --config-out /tmp/case/g.json </tmp/case/stock >/dev/null || die "xl-stream unwrap: exit status $?"
in_time 200 xl-stream save --leave running --config /tmp/case/g.json g /tmp/case/ours || die "xl-stream save: exit status $?"
equal layers /tmp/case/stock /tmp/case/ours || die "the layers differ"
verify-v2 -i /tmp/case/ours >/tmp/case/report || { tail -n 3 /tmp/case/report; die "verify-v2: exit status $?"; }
in_time 200 xl-stream save --leave running g /tmp/case/alone || die "xl-stream save without --config: exit status $?"
xl-stream unwrap --config-out /tmp/case/alone.json </tmp/case/alone >/dev/null || die "xl-stream unwrap: exit status $?"
cmp /tmp/case/g.json /tmp/case/alone.json || die "the configuration is not the one that stock xl saves"
proves g suspended=3
