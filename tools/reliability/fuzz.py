"""Fuzzes one reader, guided by the code that its inputs reach. Needs atheris.

Usage: python tools/reliability/fuzz.py TARGET FOLDER [OPTION ...]

Whatever the reader raises but our own error is a crash. FOLDER is for the files that are read;
``FOLDER/corpus`` has the inputs to begin with. The options are libFuzzer's, such as ``-runs=1000``.
"""

import contextlib
import sys
from pathlib import Path

import atheris

#: What the fuzzer sees into: whole packages with parsers in Python, as atheris takes them.
INSTRUMENTED = ["steadyspike", "yaml", "tarfile", "zipfile", "gzip", "csv", "json", "pickletools"]


def main() -> None:
    name, folder, *options = sys.argv[1:]
    with atheris.instrument_imports(include=INSTRUMENTED):
        from fuzz_targets import TARGETS

        from steadyspike.errors import UserError

        target = TARGETS[name]
        files, corpus = Path(folder, "files"), Path(folder, "corpus")
        files.mkdir(parents=True)
        corpus.mkdir()
        attempt = target.prepare(files)
    for number, seed in enumerate(target.seeds()):
        (corpus / str(number)).write_bytes(seed)

    def one(content: bytes) -> None:
        with contextlib.suppress(UserError):
            attempt(content)

    options = [f"-max_len={target.longest}", f"-artifact_prefix={folder}/", *options]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
