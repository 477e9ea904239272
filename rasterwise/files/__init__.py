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
from rasterwise.files.lock import FolderLock
from rasterwise.files.manifest import MANIFEST_NAME, damage_of, sha256_of, verify_manifest, write_manifest
from rasterwise.files.tensors import load_tensors, save_tensors, tensor_names
from rasterwise.files.whole import (
    LEFTOVER,
    LOCK_NAME,
    clear_leftovers,
    clear_locked,
    copied_folder,
    empty_folder,
    hidden,
    is_vacant,
    new_file,
    new_folder,
    recover,
    remove_folder,
)

__all__ = [
    "LEFTOVER",
    "LOCK_NAME",
    "MANIFEST_NAME",
    "FolderLock",
    "as_json",
    "clear_leftovers",
    "clear_locked",
    "copied_folder",
    "damage_of",
    "empty_folder",
    "from_json",
    "hidden",
    "is_vacant",
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
    "tensor_names",
    "verify_manifest",
    "write_json",
    "write_manifest",
]
