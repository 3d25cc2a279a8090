#!/bin/sh
# initqueue hook of dracut without systemd: runs the agent once, and stops the boot when the agent says so. Decides
# nothing else. /init sources it, so it leaves no option of the shell changed.

# A queue runs its jobs in the order of their names, time and again until all that was asked for is there. This is
# the first, so it comes before any job that configures a network or asks for a passphrase; and it runs once.
# shellcheck disable=SC2154 # /init sets it
rm -f -- "$job"

# shellcheck source=dracut/50imprint/imprint-lib.sh
. /lib/imprint-lib.sh
# Whoever is at the console may bring a payload by hand (imprint console). On purpose: a machine without the identity that it was
# meant to have must not boot on.
imprint_or_prompt run || [ -e /run/imprint/ready ] || die "$imprint_reason"
