#!/bin/sh
# migrate KIND SENDER RECEIVER: xl migrate on one host, live, the guest busy meanwhile.
# shellcheck source=lib.sh
. /share/lab/lib.sh
create g "$1" extra="rate=16"
proves g
before=$(id_of g)
migrate "$2" "$3" g
[ "$(id_of g)" != "$before" ] || die "domain $before is still there"
proves g resumed=1
