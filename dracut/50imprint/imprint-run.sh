#!/bin/sh
# initqueue hook of dracut without systemd: runs the agent once, and stops the boot when the agent says so. Decides
# nothing else. /init sources it, so it leaves no option of the shell changed.

# A queue runs its jobs in the order of their names, time and again until all that was asked for is there. This is
# the first, so it comes before any job that configures a network or asks for a passphrase; and it runs once.
# shellcheck disable=SC2154 # /init sets it
rm -f -- "$job"

# The agent's own lines reach the console as they come; the one on its standard error is why the boot stops.
{
    imprint_reason=$(/usr/bin/imprint run 2>&1 >&3 3>&-)
    imprint_code=$?
} 3>&1

if [ "$imprint_code" -ne 0 ]; then
    printf '%s\n' "$imprint_reason" >&2
    # die writes its words into a script, between double quotes, and they may hold what a medium or a server sent. A
    # record of the kernel's log has less than 1024 bytes (kernel/printk/printk.c, devkmsg_write).
    # shellcheck disable=SC1003 # two backslashes are one to tr
    imprint_reason=$(printf 'stopped with exit code %s: %.800s' "$imprint_code" "$imprint_reason" | tr -cd '[:print:]' | tr -d '"$`\\')
    # Whoever is at the console may bring a payload by hand (imprint console), and leave the shell then: die's own is the
    # last thing that a boot does. Without a shell (rd.shell=0) this ends the boot.
    emergency_shell "FATAL: $imprint_reason"
    # On purpose: a machine without the identity that it was meant to have must not boot on.
    [ -e /run/imprint/ready ] || die "$imprint_reason"
fi
