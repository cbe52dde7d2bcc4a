#!/bin/sh
# keep KIND SAVER: save an image for the newer releases to restore.
# shellcheck source=lib.sh
. /share/lab/lib.sh
create g "$1"
proves g
save "$2" g /tmp/case/g
mkdir -p /share/out
cp /tmp/case/g "/share/out/$XEN_RELEASE-$1"
