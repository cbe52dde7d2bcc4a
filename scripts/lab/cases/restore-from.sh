#!/bin/sh
# restore-from RELEASE KIND RESTORER: restore the image that an older release kept.
# shellcheck source=lib.sh
. /share/lab/lib.sh
[ -f "/share/in/$1-$2" ] || die "no image of Xen $1 is here: its case 'keep $2' has to pass first"
forget g
restore "$3" "/share/in/$1-$2"
proves g resumed=1
