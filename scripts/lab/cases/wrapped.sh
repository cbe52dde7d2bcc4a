#!/bin/sh
# wrapped KIND: an image of xc-save by itself, our record of what domain to make in it, becomes what xl save would have
# written, by xl-stream wrap, and stock xl restores it. The configuration is from stock xl's own image of the domain.
# shellcheck source=lib.sh
. /share/lab/lib.sh
create g "$1"
proves g
save stock g /tmp/case/stock -c
/tmp/bin/xl-stream unwrap --config-out /tmp/case/g.json </tmp/case/stock >/dev/null || die "xl-stream unwrap: exit status $?"
rm /tmp/case/stock
proves g suspended=1
id=$(id_of g)
in_time 200 /tmp/bin/xc-save "$id" >/tmp/case/g.xc || die "xc-save: exit status $?"
in_time 30 xl destroy "$id"
forget g
/tmp/bin/xl-stream wrap --config /tmp/case/g.json </tmp/case/g.xc >/tmp/case/g.save || die "xl-stream wrap: exit status $?"
/tmp/bin/verify-v2 -i /tmp/case/g.save | grep XENFERRY_DOMAIN || die "our record is not in the image"
restore stock /tmp/case/g.save
proves g resumed=1
