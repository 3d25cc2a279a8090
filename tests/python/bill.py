"""Reads a bill of materials with another project's reader of CycloneDX: bill.py FILE. It runs in a virtual
environment of its own (scripts/install-needs deb)."""

import pathlib
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(pathlib.Path(sys.argv[1]).read_text())
sys.exit(f"{error}") if error else print("valid")
