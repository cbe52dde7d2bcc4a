#!/bin/sh
# migrate KIND SENDER RECEIVER: xl migrate on one host, live, the guest busy meanwhile. Our sender is told how many rounds it may take,
# below xl, and where its statistics go.
# shellcheck source=lib.sh
. /share/lab/lib.sh
create g "$1" extra="rate=16"
proves g
before=$(id_of g)
export XENFERRY_MAX_ITERATIONS=2 XENFERRY_STATS=/tmp/stats
rm -f /tmp/stats
migrate "$2" "$3" g
[ "$(id_of g)" != "$before" ] || die "domain $before is still there"
proves g resumed=1
if [ "$2" = stock ] || [ "$HELPER" = "$stock" ]; then exit; fi
grep -c '"kind":"live"' /tmp/stats | grep -qx '[12]' || die "rounds: $(cat /tmp/stats)"
grep -q '"type":"downtime".*"until":"written"' /tmp/stats || die "no downtime: $(cat /tmp/stats)"
