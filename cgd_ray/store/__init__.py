"""Objects by key, in a local folder or on S3. The only package that knows `s3://`.

Two rules make everything above it safe to kill: `put` is atomic (a reader sees the whole object or
none), and `put_new` creates a key at most once, whoever races for it.
"""

from cgd_ray.store.local import LocalStore
from cgd_ray.store.opening import map_objects, open_store, split_location
from cgd_ray.store.protocol import Entry, MissingKey, Store, StoreError
from cgd_ray.store.s3 import S3Store

__all__ = [
    "Entry",
    "LocalStore",
    "MissingKey",
    "S3Store",
    "Store",
    "StoreError",
    "map_objects",
    "open_store",
    "split_location",
]
