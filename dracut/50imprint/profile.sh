#!/bin/sh
# Part of /etc/profile in the initramfs: the last words before a prompt say why imprint stopped the boot, and what to do. What
# scrolls by between the agent's own words and the prompt is more than a screen has. Decides nothing; says nothing where the
# boot was not stopped.
#
# With systemd dracut-emergency reads this file, behind all that it writes to every console, and before sulogin asks there.
# Without, dracut's shell is a login shell, which reads it before its prompt.
if [ -e /run/imprint/status.json ]; then
    case $0 in
        *dracut-emergency*)
            while read -r imprint_console _; do
                /usr/bin/imprint status --reason 2>/dev/null >"/dev/$imprint_console"
            done </proc/consoles
            unset imprint_console
            ;;
        *) /usr/bin/imprint status --reason 2>/dev/null ;;
    esac
fi
