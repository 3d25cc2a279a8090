#!/bin/sh
# initqueue/finished hook of dracut without systemd: the queue is not over before imprint-run.sh has run. Without it,
# /init would skip the queue when the root device is there already.

# shellcheck disable=SC2154 # /init sets it
[ ! -e "$hookdir/initqueue/01-imprint-run.sh" ]
