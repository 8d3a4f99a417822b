"""The real MinIO, an S3 server with every kind of lock, built from the Go module that go.mod names.

About four minutes, once per machine; only the tests of the second stage need it. Run
`python -m devtools.builds.minio.build` to have it built, or call `minio()`.
"""

from pathlib import Path

from devtools.builds.go import program

HERE = Path(__file__).parent
MODULE = "github.com/minio/minio"


def minio() -> Path:
    """Return the program, building it if this version has not been built yet.

    Raises `subprocess.CalledProcessError` when the build fails; its output has been shown by then.
    """
    return program(MODULE, of=MODULE, module=HERE)


if __name__ == "__main__":
    print(minio())
