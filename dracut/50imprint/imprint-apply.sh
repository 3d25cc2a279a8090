#!/bin/sh
# pre-pivot hook of dracut without systemd: has the agent lay the bundle over the root, and leave imprint.target there, and stops
# the boot when the agent says so. Decides nothing else. /init sources it, so it leaves no option of the shell changed.

if [ -e /run/imprint/bundle.json ] || [ -e /run/imprint/anew ] || [ -e /run/imprint/ready ]; then
    # The agent's own lines reach the console as they come; the one on its standard error is why the boot stops.
    # shellcheck disable=SC2154 # /init sets NEWROOT
    {
        imprint_reason=$(/usr/bin/imprint apply --root "$NEWROOT" 2>&1 >&3 3>&-)
        imprint_code=$?
    } 3>&1
    if [ "$imprint_code" -ne 0 ]; then
        printf '%s\n' "$imprint_reason" >&2
        # die writes its words into a script, between double quotes, and they may hold what a bundle says. A record of the
        # kernel's log has less than 1024 bytes (kernel/printk/printk.c, devkmsg_write).
        # shellcheck disable=SC1003 # two backslashes are one to tr
        imprint_reason=$(printf 'stopped with exit code %s: %.800s' "$imprint_code" "$imprint_reason" | tr -cd '[:print:]' | tr -d '"$`\\')
        # Whoever is at the console may mend what is wrong, and leave the shell then: die's own is the last thing that a boot
        # does. Without a shell (rd.shell=0) this ends the boot.
        emergency_shell "FATAL: $imprint_reason"
        # On purpose: a machine without the configuration that it was meant to have must not boot on. Does nothing if the root
        # has it by now.
        /usr/bin/imprint apply --root "$NEWROOT" || die "$imprint_reason"
    fi
fi
