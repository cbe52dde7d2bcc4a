#!/bin/sh
# splice KIND: what xc-save wrote by itself, our optional record of the domain in it, wrapped by xl-stream, is an xl save file that
# stock xl with the stock helper restores.
# shellcheck source=lib.sh
. /share/lab/lib.sh
create g "$1"
proves g
id=$(id_of g)
in_time 200 /tmp/bin/xc-save "$id" >/tmp/case/image || die "xc-save: exit status $?"
in_time 30 xl destroy "$id"
forget g
/tmp/bin/verify-v2 -v -i /tmp/case/image | grep -q XENFERRY_DOMAIN || die "the image has no optional record"
/tmp/bin/xl-stream wrap --config /tmp/g.cfg </tmp/case/image >/tmp/case/g || die "xl-stream wrap: exit status $?"
restore stock /tmp/case/g
proves g resumed=1
