"""The real versitygw, an S3 server over a folder, built from the Go module that go.mod names.

About two minutes, once per machine. Run `python -m devtools.builds.versitygw.build` to have it built, or
call `versitygw()`.
"""

from pathlib import Path

from devtools.builds.go import program

HERE = Path(__file__).parent
MODULE = "github.com/versity/versitygw"


def versitygw() -> Path:
    """Return the program, building it if this version has not been built yet.

    Raises `subprocess.CalledProcessError` when the build fails; its output has been shown by then.
    """
    return program(f"{MODULE}/cmd/versitygw", of=MODULE, module=HERE, version_at="main.Version")


if __name__ == "__main__":
    print(versitygw())
