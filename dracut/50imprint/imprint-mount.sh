#!/bin/sh
# mount hook of dracut without systemd: has the agent fetch and mount the root that root=imprint: names, and stops the boot when the
# agent says so. Decides nothing else. /init sources it, so it leaves no option of the shell changed.

# shellcheck disable=SC2154 # /init sets root and NEWROOT
case $root in
    imprint:*)
        # shellcheck source=dracut/50imprint/imprint-lib.sh
        . /lib/imprint-lib.sh
        # Whoever is at the console may mend what is wrong; the second call does nothing if the root is there by then. On purpose: a
        # machine without its root cannot boot on, and /init would try twenty times.
        imprint_or_prompt root --to "$NEWROOT" || /usr/bin/imprint root --to "$NEWROOT" || die "$imprint_reason"
        ;;
esac
