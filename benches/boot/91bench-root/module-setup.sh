#!/bin/bash
# shellcheck disable=SC2154 # dracut sets the variables that nothing here does
# dracut module for the bench only: the driver of the root that is booted. With BENCH_WITHOUT nothing starts imprint: the image is the
# same otherwise, drivers included.

check() {
    return 255
}

installkernel() {
    instmods ext4
}

install() {
    [[ -z ${BENCH_WITHOUT-} ]] ||
        find "$initdir" '(' -name 'imprint*.service' -o -path '*/hooks/*imprint-*.sh' -o -path '*.d/imprint.conf' ')' -delete
}
