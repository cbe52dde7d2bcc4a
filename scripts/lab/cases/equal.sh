#!/bin/sh
# equal KIND [SAVER...]: each of the savers, ours if none is named, writes the very octets that the stock helper writes, of the same
# suspended domain. With stock among them it shows whether the stock helper itself does.
# shellcheck source=lib.sh
. /share/lab/lib.sh
kind=$1
shift
[ $# -gt 0 ] || set -- ours
savers=''
for s; do
  case $s in
    ours) h=$HELPER ;;
    *) h=$stock ;;
  esac
  savers="$savers,$h=/tmp/case/$s"
done
create g "$kind"
proves g
EQUAL_STOCK=$stock EQUAL_SAVERS=${savers#,} save /tmp/bin/equal g /tmp/case/g
for s; do
  [ -s "/tmp/case/$s" ] || die "$s has written nothing"
  /tmp/bin/xl-stream unwrap </tmp/case/g | in_time 100 /tmp/bin/equal - "/tmp/case/$s" || die "$s writes another stream"
done
