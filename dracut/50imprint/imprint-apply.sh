#!/bin/sh
# pre-pivot hook of dracut without systemd: has the agent lay the bundle over the root, and leave imprint.target there, and stops
# the boot when the agent says so. Decides nothing else. /init sources it, so it leaves no option of the shell changed.

if [ -e /run/imprint/bundle.json ] || [ -e /run/imprint/anew ] || [ -e /run/imprint/ready ]; then
    # shellcheck source=dracut/50imprint/imprint-lib.sh
    . /lib/imprint-lib.sh
    # Whoever is at the console may mend what is wrong; the second call does nothing if the root has the bundle by then. On
    # purpose: a machine without the configuration that it was meant to have must not boot on.
    # shellcheck disable=SC2154 # /init sets NEWROOT
    imprint_or_prompt apply --root "$NEWROOT" || /usr/bin/imprint apply --root "$NEWROOT" || die "$imprint_reason"
fi
