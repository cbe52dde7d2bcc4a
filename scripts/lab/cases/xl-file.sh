#!/bin/sh
# xl-file KIND: a file of xl-stream save is restored by stock xl, and one of stock xl by xl-stream restore.
# shellcheck source=lib.sh
. /share/lab/lib.sh
PATH=/tmp/bin:$PATH
create g "$1"
proves g
in_time 200 xl-stream save g /tmp/case/ours 2>/tmp/case/said || die "xl-stream save: exit status $?: $(cat /tmp/case/said)"
cat /tmp/case/said
grep -q 'configuration from /var/lib/xen/userdata' /tmp/case/said || die "xl-stream save does not say whose configuration it took"
[ -z "$(id_of g)" ] || die "the saved domain is still there"
nothing_left
forget g
restore stock /tmp/case/ours
proves g resumed=1

save stock g /tmp/case/stock
forget g
in_time 200 xl-stream restore /tmp/case/stock || die "xl-stream restore: exit status $?"
proves g resumed=2
