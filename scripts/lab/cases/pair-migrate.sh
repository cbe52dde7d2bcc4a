#!/bin/sh
# pair-migrate KIND SENDER RECEIVER: xl migrate, live, to the other lab of a pair.
# shellcheck source=lib.sh
. /share/lab/lib.sh
set -e
on_peer '. /share/lab/lib.sh; clean; xl list' || die "the other lab does not answer"
case $3 in
  ours) [ "$HELPER" = "$stock" ] || there="LIBXL_SAVE_HELPER=$HELPER" ;;
esac
create g "$1" extra="rate=16"
proves g
with "$2" in_time 280 xl migrate -s '' g "sh /share/lab/peer ${there:-} xl migrate-receive" || die "xl migrate: exit status $?"
if id_of g; then die "the guest is still here"; fi
on_peer '. /share/lab/lib.sh; proves g resumed=1' || die "the guest does not prove itself there"
