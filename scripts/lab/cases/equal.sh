#!/bin/sh
# equal KIND: ours writes the very octets that the stock helper writes, of the same suspended domain.
# shellcheck source=lib.sh
. /share/lab/lib.sh
create g "$1"
proves g
EQUAL_STOCK=$stock EQUAL_OURS=$HELPER EQUAL_OUT=/tmp/case/ours save /tmp/bin/equal g /tmp/case/g
[ -s /tmp/case/ours ] || die "ours has written nothing"
/tmp/bin/xl-stream unwrap </tmp/case/g >/tmp/case/stock || die "xl-stream unwrap: exit status $?"
in_time 60 /tmp/bin/equal /tmp/case/stock /tmp/case/ours || die "the streams differ"
