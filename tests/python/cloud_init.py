#!/usr/bin/env python3
"""Shows what cloud-init makes of user data, with cloud-init's own parser and handlers, as `cloud-init init` uses them, in a
folder of their own. Runs on Debian's python3, which has the modules that cloud-init needs. cloud-init itself is unpacked and
never installed (scripts/install-needs test). Prints JSON: the parts (type and text), the cloud-config that they give, and every
message above the level of information.

usage: cloud_init.py FILE [CLOUD-CONFIG]   with a second file: FILE is a multipart, and this is one more part of it"""

import email
import email.mime.text
import json
import logging
import os
import pathlib
import sys
import tempfile

cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
sys.path.insert(0, os.path.join(cache, "imprint/cloud-init/usr/lib/python3/dist-packages"))

from cloudinit import handlers, helpers, user_data, util  # noqa: E402
from cloudinit.handlers.boot_hook import BootHookPartHandler  # noqa: E402
from cloudinit.handlers.cloud_config import CloudConfigPartHandler  # noqa: E402
from cloudinit.handlers.shell_script import ShellScriptPartHandler  # noqa: E402
from cloudinit.settings import PER_INSTANCE  # noqa: E402


class Messages(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.found = []

    def emit(self, record):
        self.found.append([record.levelname, record.getMessage()])


class Instance:
    """What a data source knows of the instance, as far as folders are named after it."""

    def get_instance_id(self):
        return "node1"


def main():
    blob = pathlib.Path(sys.argv[1]).read_bytes()
    if len(sys.argv) > 2:
        message = email.message_from_bytes(blob)
        text = pathlib.Path(sys.argv[2]).read_text()
        message.attach(email.mime.text.MIMEText(text, "cloud-config"))
        blob = message.as_bytes()
    messages = Messages()
    logging.getLogger().addHandler(messages)
    with tempfile.TemporaryDirectory() as folder:
        paths = helpers.Paths({"cloud_dir": folder, "run_dir": folder}, Instance())
        os.makedirs(paths.get_ipath("scripts"))
        processed = user_data.UserDataProcessor(paths).process(blob)
        known = helpers.ContentHandlers()
        for kind in (CloudConfigPartHandler, ShellScriptPartHandler, BootHookPartHandler):
            known.register(kind(paths=paths, datasource=None))
        modules = {id(module): module for _, module in known.items()}.values()
        data = {
            "handlers": known, "handlerdir": folder, "data": None, "frequency": PER_INSTANCE, "handlercount": 0,
            "excluded": [],
        }
        for module in modules:
            handlers.call_begin(module, None, PER_INSTANCE)
        handlers.walk(processed, handlers.walker_callback, data)
        for module in modules:
            handlers.call_end(module, None, PER_INSTANCE)
        config = pathlib.Path(paths.get_ipath("cloud_config"))
        config = util.load_yaml(config.read_text()) if config.exists() else None
    parts = [
        [part.get_content_type(), part.get_payload(decode=True).decode()]
        for part in processed.walk()
        if part.get_content_maintype() != "multipart"
    ]
    print(json.dumps({"parts": parts, "config": config, "messages": messages.found}))


if __name__ == "__main__":
    main()
