#!/bin/sh
# save-restore KIND SAVER RESTORER: xl save and xl restore, each under its helper, ours or stock.
# shellcheck source=lib.sh
. /share/lab/lib.sh
create g "$1"
proves g
save "$2" g /tmp/case/g
restore "$3" /tmp/case/g
proves g resumed=1
