"""The hub's own Python client on a cache that hesper shares: interoperation.py STEP CACHE (HF_ENDPOINT names the server)."""
import os
import sys

import filelock
from huggingface_hub import hf_hub_download, scan_cache_dir, try_to_load_from_cache

step, cache = sys.argv[1:3]
files = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]


def get(file, **options):
    return hf_hub_download("org/name", file, cache_dir=cache, **options)


if step == "fetch":
    for file in files:
        get(file)
elif step == "find":  # what hesper fetched: offline, as a whole, and without fetching anew
    for file in files:
        path = get(file, local_files_only=True)
        assert path == try_to_load_from_cache("org/name", file, cache_dir=cache), path
        assert os.path.islink(path) and os.path.realpath(path) == os.path.realpath(get(file)), path
    info = scan_cache_dir(cache)
    assert not info.warnings, info.warnings
    (repository,) = info.repos
    (revision,) = repository.revisions
    assert repository.repo_id == "org/name" and repository.repo_type == "model", repository
    assert revision.refs == {"main"} and revision.commit_hash == "a" * 40, revision
    assert sorted(f.file_name for f in revision.files) == sorted(files), revision
elif step == "locked":  # hesper holds the lock of a blob
    try:
        with filelock.FileLock(sys.argv[3], timeout=0.2):
            sys.exit("got a lock that hesper holds")
    except filelock.Timeout:
        pass
