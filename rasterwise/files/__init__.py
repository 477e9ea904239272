"""Files and folders that are written whole or not at all, and checked when they are opened."""

from rasterwise.files.json_objects import (
    as_json,
    from_json,
    member,
    parse_json,
    read_json,
    read_json_lines,
    sealed,
    write_json,
)
from rasterwise.files.manifest import MANIFEST_NAME, damage_of, sha256_of, verify_manifest, write_manifest
from rasterwise.files.tensors import load_tensors, save_tensors
from rasterwise.files.whole import (
    LEFTOVER,
    clear_leftovers,
    copied_folder,
    hidden,
    new_file,
    new_folder,
    recover,
    remove_folder,
)

__all__ = [
    "LEFTOVER",
    "MANIFEST_NAME",
    "as_json",
    "clear_leftovers",
    "copied_folder",
    "damage_of",
    "from_json",
    "hidden",
    "load_tensors",
    "member",
    "new_file",
    "new_folder",
    "parse_json",
    "read_json",
    "read_json_lines",
    "recover",
    "remove_folder",
    "save_tensors",
    "sealed",
    "sha256_of",
    "verify_manifest",
    "write_json",
    "write_manifest",
]
